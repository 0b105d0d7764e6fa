"""``wal-pipeline metrics`` prints the metrics for Prometheus, writes them to a file, or serves them."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click

from wal_pipeline.cli.group import Context, pass_context
from wal_pipeline.cli.printing import print_line


@click.command("metrics")
@click.option("--textfile", type=click.Path(path_type=Path, dir_okay=False), help="Write them to this file, whole.")
@click.option("--listen", metavar="HOST:PORT", help="Serve them at http://HOST:PORT/metrics until interrupted.")
@pass_context
def metrics_command(context: Context, textfile: Path | None, listen: str | None) -> int:
    """Print the metrics in Prometheus' text format, looked up now."""
    from wal_pipeline.commands.status.prometheus import write_textfile

    if listen is not None:
        _serve(context, listen)
    elif textfile is not None:
        write_textfile(textfile, _metrics(context))
    else:
        click.echo(_metrics(context), nl=False)
    return 0


def _metrics(context: Context) -> str:
    from wal_pipeline.commands.health.facts import look_at_everything
    from wal_pipeline.commands.status.prometheus import metrics_text
    from wal_pipeline.commands.status.status import judge
    from wal_pipeline.wiring.health import fact_sources, health_limits

    pipeline = context.pipeline
    limits = health_limits(pipeline)
    status = judge(look_at_everything(fact_sources(pipeline)), limits)
    return metrics_text(
        status,
        spool_limit_bytes=pipeline.settings.spool_limit_bytes,
        rto_objective_seconds=limits.rto_objective_seconds,
    )


def _serve(context: Context, listen: str) -> None:
    from wal_pipeline.errors import SettingsError

    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise SettingsError(f"'{listen}' is not an address", hint="Write it as 127.0.0.1:9188.")
    try:
        server = make_server(context, host.strip("[]"), int(port))
    except OSError as error:
        raise SettingsError(f"cannot listen at '{listen}': {error.strerror}") from error
    print_line(f"metrics at http://{host}:{server.server_port}/metrics", err=True)
    with server:
        server.serve_forever()


def make_server(context: Context, host: str, port: int) -> ThreadingHTTPServer:
    """Return a server that looks again at each request. Where that fails, it answers 503 with the reason."""
    from wal_pipeline.errors import WalPipelineError

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.split("?", 1)[0] not in ("/metrics", "/"):
                self._answer(404, "look at /metrics\n")
                return
            try:
                self._answer(200, _metrics(context))
            except WalPipelineError as error:
                self._answer(503, f"{error}\n")

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing: Prometheus asks every few seconds."""

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return ThreadingHTTPServer((host, port), Handler)
