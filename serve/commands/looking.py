"""The commands `inspect` and `verify`."""

from __future__ import annotations

import json

import click

from serve.commands.shared import bundle_argument, json_option, quiet_ends


@click.command("inspect")
@bundle_argument
@click.argument("other", required=False, type=click.Path())
@json_option
@quiet_ends
def inspect_(bundle: str, other: str | None, as_json: bool) -> None:
    """Show what a BUNDLE is: task, graphs, operators, weights by kind, cache, verification; or what
    differs between it and an OTHER, which is no failure: the exit code is 0.
    """
    from serve.bundle.difference import compare
    from serve.bundle.inspect import describe

    facts = describe(bundle) if other is None else compare(bundle, other)
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        from serve.commands.show import show_bundle, show_difference

        (show_bundle if other is None else show_difference)(facts)


@click.command("verify")
@bundle_argument
@click.option("--tolerance", type=float, help="Largest difference allowed; else the bundle's own.")
@click.option("--provider", "providers", multiple=True, help="Execution provider: cpu, cuda, ...")
@json_option
@quiet_ends
def verify(bundle: str, tolerance: float | None, providers: tuple[str, ...], as_json: bool) -> None:
    """Check the files of a BUNDLE and replay the reference values that it carries."""
    from serve.bundle.manifest import Manifest
    from serve.bundle.selfcheck import replay
    from serve.runtime.session import SessionOptions

    manifest = Manifest.load(bundle, check="full")
    report = replay(manifest, SessionOptions(providers or None), tolerance)
    report["files"] = len(manifest.files)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        from serve.commands.show import show_report

        show_report(manifest.name, report)
