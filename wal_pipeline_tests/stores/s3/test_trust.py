"""One's own authorities are trusted beside the usual ones, and a bundle that cannot be used is refused by its name."""

import ssl
from pathlib import Path

import certifi
import pytest

from testbed.tls import TlsFiles
from wal_pipeline.errors import SettingsError
from wal_pipeline.stores.s3.trust import count_authorities, trusted_authorities


def subjects(path: str | Path) -> set[str]:
    """The authorities of a file, by name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=path)
    return {str(one["subject"]) for one in context.get_ca_certs()}


@pytest.fixture
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The usual authorities, as a copy: on some hosts a program adds its own to certifi's file while tests run."""
    path = tmp_path / "usual.pem"
    path.write_bytes(Path(certifi.where()).read_bytes())
    monkeypatch.setattr(certifi, "where", lambda: str(path))
    return path


def test_a_bundle_does_not_replace_the_usual_authorities(usual: Path, tmp_path: Path, tls_files: TlsFiles) -> None:
    """A private store beside a public one: both prove who they are."""
    bundle = tmp_path / "own.pem"
    bundle.write_bytes(tls_files.ca_bundle.read_bytes())
    assert subjects(trusted_authorities(bundle)) == subjects(usual) | subjects(bundle)
    assert not subjects(usual) & subjects(bundle)
    assert subjects(trusted_authorities(None)) == subjects(usual)


def test_a_folder_of_certificates_is_a_bundle_too(tmp_path: Path, tls_files: TlsFiles) -> None:
    """Whatever else lies in it does not count."""
    (tmp_path / "README").write_text("no certificate")
    (tmp_path / "ours.crt").write_text("# Our authority\n" + tls_files.ca_bundle.read_text())
    assert subjects(tls_files.ca_bundle) <= subjects(trusted_authorities(tmp_path))
    assert count_authorities(tmp_path) == count_authorities(tls_files.ca_bundle) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "CA bundle '{path}' cannot be read: No such file or directory"),
        ("not one", "CA bundle '{path}' holds no certificate that can be read"),
        ("", "CA bundle '{path}' holds no certificate that can be read"),
    ],
)
def test_a_bundle_that_cannot_be_used_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    """Rather than that each store 'does not prove who it is'."""
    path = tmp_path / "bundle.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError) as raised:
        trusted_authorities(path)
    assert raised.value.message == message.format(path=path)
    assert raised.value.hint is not None
    assert "WAL_PIPELINE_CA_BUNDLE" in raised.value.hint


def test_an_empty_folder_is_no_bundle(tmp_path: Path) -> None:
    """It has no file with a certificate."""
    with pytest.raises(SettingsError) as raised:
        trusted_authorities(tmp_path)
    assert raised.value.message == f"CA bundle '{tmp_path}' has no file with a certificate"
