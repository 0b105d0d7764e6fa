"""Compression levels: each codec's own, with a default for WAL and another for base backups."""

import pytest

from wal_pipeline.archive.records import Codec
from wal_pipeline.codec.encoder import Encoder
from wal_pipeline.codec.levels import BASE_BACKUP_LEVELS, LEVELS, WAL_LEVELS, choose_level
from wal_pipeline.codec.stream_encoder import StreamEncoder
from wal_pipeline.errors import SettingsError


@pytest.mark.parametrize("codec", Codec)
def test_the_default_is_taken_where_none_is_set(codec: Codec) -> None:
    """WAL and base backups have defaults of their own, all of them levels that the codec has."""
    assert (Encoder(codec).level, StreamEncoder(codec).level) == (WAL_LEVELS[codec], BASE_BACKUP_LEVELS[codec])
    lowest, highest = LEVELS[codec]
    assert lowest <= min(WAL_LEVELS[codec], BASE_BACKUP_LEVELS[codec])
    assert max(WAL_LEVELS[codec], BASE_BACKUP_LEVELS[codec]) <= highest


@pytest.mark.parametrize("codec", Codec)
def test_only_the_codecs_levels_are_taken(codec: Codec) -> None:
    """Both ends are levels; one beyond is refused, with the levels that there are and the setting's name."""
    lowest, highest = LEVELS[codec]
    for level in (lowest, highest):
        assert choose_level(codec, level, WAL_LEVELS, variable="X") == level
    for level in (lowest - 1, highest + 1):
        with pytest.raises(SettingsError) as raised:
            choose_level(codec, level, WAL_LEVELS, variable="X")
        assert str(raised.value) == (
            f"codec '{codec}' has no level {level}: expected {lowest} to {highest}\n"
            "HINT: Set X, or leave it out for the codec's usual level."
        )


def test_each_encoder_names_its_own_setting() -> None:
    """WAL's codec and the base backup's have different settings."""
    with pytest.raises(SettingsError) as of_wal:
        Encoder(Codec.GZIP, 0)
    with pytest.raises(SettingsError) as of_base_backups:
        StreamEncoder(Codec.GZIP, 0)
    assert "Set WAL_PIPELINE_CODEC_LEVEL," in str(of_wal.value.hint)
    assert "Set WAL_PIPELINE_BASE_BACKUP_CODEC_LEVEL," in str(of_base_backups.value.hint)
