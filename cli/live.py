"""`serve`, `status` and `send`: run the bridge, watch it, and send a file through it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..bridge import PORT
from ..engine.errors import OptionError, StemProverError
from .options import (
    Device,
    DeviceOption,
    OverwriteOption,
    PresetOption,
    RoleOption,
    check_range,
    flag,
    needs_extra,
    read_pipes,
)

HTTP_PORT = PORT + 1
PortOption = Annotated[int, typer.Option(metavar="N", help="Port of the bridge (OSC over TCP and UDP).")]
HttpPortOption = Annotated[int, typer.Option(metavar="N", help="Port of the monitor page and of discovery.")]
TokenOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="File with the token; or set the environment variable STEMPROVER_TOKEN."),
]


def serve(
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; any but loopback needs a token.")
    ] = "127.0.0.1",
    port: PortOption = PORT,
    http_port: HttpPortOption = HTTP_PORT,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Require the token in this file from clients; creates the file if it does not exist."
        ),
    ] = None,
    root: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Folder whose files clients may have repaired; repeatable."),
    ] = None,
    jobs_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Where rendering jobs are stored.")] = None,
    max_streams: Annotated[
        int | None, typer.Option(metavar="N", help="Maximum number of streams.  \\[default: what this machine can run]")
    ] = None,
    threads: Annotated[int | None, typer.Option(metavar="N", help="Worker threads.  \\[default: all cores]")] = None,
    device: DeviceOption = Device.AUTO,
    verbose: Annotated[bool, flag("--verbose", help="Log more.")] = False,
) -> None:
    """Run the bridge: DAWs and scripts send it audio over OSC and get it back repaired.

    \b
    stemprover serve
    stemprover serve --root ~/stems --token-file ~/.stemprover-token
    """
    check_range("--max-streams", max_streams, 1, 128)
    check_range("--threads", threads, 1, 256)
    with needs_extra("live"):
        from ..bridge.server import serve as serving

        serving.serve(
            host=host,
            port=port,
            http_port=http_port,
            token_file=token_file,
            roots=tuple(root or ()),
            jobs_file=jobs_file,
            most_streams=max_streams,
            threads=threads,
            device=device.value,
            verbose=verbose,
        )


def status(
    http_port: HttpPortOption = HTTP_PORT,
    token_file: TokenOption = None,
    as_json: Annotated[bool, flag("--json", help="Print the state once, as JSON.")] = False,
    once: Annotated[bool, flag("--once", help="Print the table once and exit.")] = False,
) -> None:
    """Show the state of the bridge: streams, presets, latency, load, late blocks."""
    with needs_extra("live"):
        from ..bridge.client.client import find_token
        from ..bridge.client.status import fetch_status, show_status

        token = find_token(token_file)
        if as_json:
            print(json.dumps(fetch_status(http_port, token), indent=1))
            return
        show_status(http_port, token, once=once)


def send(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="IN", help="The stem to send.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT", help="The repaired file.")],
    mix: Annotated[
        Path | None, typer.Option(metavar="MIX", help="The mix the stem was separated from, sent along with it.")
    ] = None,
    preset: PresetOption = None,
    role: RoleOption = None,
    wet: Annotated[float | None, typer.Option(metavar="0..1", help="How much of the repair to apply.")] = None,
    realtime: Annotated[bool, flag("--realtime", help="Send in real time, as a DAW would.")] = False,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address of the bridge.")] = "127.0.0.1",
    port: PortOption = PORT,
    token_file: TokenOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Repair a file through a running bridge.

    The default preset is general, with or without --mix.

    \b
    stemprover send vocals.wav -o repaired.wav --mix song.wav
    """
    check_range("--wet", wet, 0, 1)
    with needs_extra("live"):
        from ..bridge.client.client import Client, find_token
        from ..bridge.client.remote import RemoteRepairer
        from ..offline.outfile import make_folder
        from ..offline.render import render_file
        from ..reports.terminal import file_progress, say

        def prepare(client: Client) -> None:
            if preset is not None:
                client.select(preset)
            if wet is not None:
                client.set_wet(wet)

        if source.is_dir():
            raise OptionError(f"{source} is a folder; send a single file, or use stemprover repair")
        name = source.name[:60]
        piped = read_pipes(context, source, mix)
        source, mix = piped.get(source, source), piped.get(mix, mix)
        make_folder(output.parent)
        remote = RemoteRepairer(
            prepare, realtime=realtime, host=host, port=port, token=find_token(token_file), name=name
        )
        with file_progress(source.name) as progress:
            report = render_file(source, output, remote, mix=mix, overwrite=overwrite, role=role, progress=progress)
        say(report.render())
        if remote.late:
            raise StemProverError(
                f"{remote.late} of {remote.blocks} blocks came back too late and are not repaired in {output}; "
                "try again without --realtime"
            )
