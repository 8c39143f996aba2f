"""`llmr`: the verbs and their options. What they do is in the modules beside this one."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from llmr import __version__
from llmr.cli.output import CONFIG, FAILED, UPSTREAM, USAGE, fail
from llmr.core.request import PRIORITIES
from llmr.errors import ApiError, ConfigError

app = typer.Typer(
    name="llmr",
    help="Low-Latency Model Router: picks the best model for every request.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="Check, show or describe the configuration.", no_args_is_help=True)
app.add_typer(config_app, name="config")
catalogue_app = typer.Typer(
    help="Where the models are from, how old that is, and what a refresh changes.",
    no_args_is_help=True,
)
app.add_typer(catalogue_app, name="catalogue")
quality_app = typer.Typer(help="How good predictions of quality are.", no_args_is_help=True)
app.add_typer(quality_app, name="quality")

ConfigFile = Annotated[
    str | None, typer.Option("--config", "-c", metavar="FILE", help="Configuration file.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Data for programs, on stdout.")]


def _priority(value: str | None) -> str | None:
    if value is not None and value not in PRIORITIES:
        raise typer.BadParameter(f"use one of {', '.join(PRIORITIES)}")
    return value


Priority = Annotated[
    str | None,
    typer.Option("--priority", "-p", callback=_priority, help="speed, cost, quality or balanced."),
]


def _version(value: bool) -> None:
    if value:
        print(f"llmr {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Low-Latency Model Router: picks the best model for every request."""


@app.command(epilog="Example: llmr serve --port 9000 --config llmr.yaml")
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks one.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the port.")] = 1,
    config: ConfigFile = None,
    sandbox: Annotated[
        bool, typer.Option("--sandbox", help="Answer from a simulated provider, no key needed.")
    ] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve the router over HTTP."""
    from llmr.cli.serve import run
    from llmr.observe.log import LEVELS

    if log_level not in LEVELS:
        fail(f"unknown log level {log_level!r}", USAGE, f"use one of {', '.join(LEVELS)}")
    flags = {"server.host": host, "server.port": port}
    raise typer.Exit(run(config, flags, workers, sandbox, log_level))


@app.command(epilog="Example: llmr route 'Prove that 2 is prime' --priority quality --dry-run")
def route(
    text: Annotated[str, typer.Argument(help="What to ask; - reads it from stdin.")],
    priority: Priority = None,
    max_latency: Annotated[
        float | None, typer.Option(metavar="MS", help="Expected time to the first token.")
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(metavar="USD_PER_1K", help="Prompt plus completion price per 1,000 tokens."),
    ] = None,
    prefer: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="Prefer a model; can be repeated.")
    ] = None,
    model: Annotated[str, typer.Option(help="A model id instead of auto.")] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the decision, send nothing, need no key.")
    ] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer as it comes.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Route one question and print the answer, or the decision."""
    from llmr.cli import route as verb

    wishes: dict[str, Any] = {
        "priority": priority,
        "max_latency_ms": max_latency,
        "max_cost_per_1k": max_cost,
        "preferred_models": prefer or None,
    }
    fields = {key: value for key, value in wishes.items() if value is not None}
    question = sys.stdin.read() if text == "-" else text
    fields |= {"model": model, "messages": [{"role": "user", "content": question}]}
    if dry_run:
        verb.dry_run(config, fields, as_json)
    else:
        verb.ask(config, fields, stream, as_json)


@app.command(epilog="Example: llmr models --json | jq '.models[].id'")
def models(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List every routable model with its figures."""
    from llmr.cli.inspect import models as verb

    verb(config, as_json)


@app.command(epilog="Example: llmr benchmark --iterations 5000 --priority speed")
def benchmark(
    iterations: Annotated[int, typer.Option("--iterations", "-n", min=1)] = 2000,
    priority: Priority = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Measure how long a routing decision takes here. Sends nothing, needs no key."""
    from llmr.cli.benchmark import run

    run(config, iterations, priority, as_json)


Redis = Annotated[bool, typer.Option("--redis", help="Ask Redis itself, not the running server.")]


@app.command("cache-stats", epilog="Example: llmr cache-stats --json")
def cache_stats(redis: Redis = False, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show what the response cache holds."""
    from llmr.cli.inspect import cache_stats as verb

    verb(config, redis, as_json)


@app.command("clear-cache", epilog="Example: llmr clear-cache --redis")
def clear_cache(redis: Redis = False, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Forget every cached answer."""
    from llmr.cli.inspect import clear_cache as verb

    verb(config, redis, as_json)


@app.command(epilog="Example: llmr explain dec-1a2b3c4d-7")
def explain(
    decision_id: Annotated[str, typer.Argument(help="The id in x-llmr-decision-id.")],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Explain a past decision of the running server."""
    from llmr.cli.inspect import explain as verb

    verb(config, decision_id, as_json)


@app.command(epilog="Example: llmr sandbox --port 9001")
def sandbox(
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks one.")] = 9001,
    control_port: Annotated[int, typer.Option(help="Port to set faults on; 0 picks one.")] = 0,
    speed: Annotated[float, typer.Option(min=0, help="Factor on all waiting; 0 is none.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the simulated latencies.")] = 0,
) -> None:
    """Run the simulated provider alone, for trying and testing."""
    from llmr.sandbox.__main__ import main as run

    arguments = ["--port", port, "--control-port", control_port, "--speed", speed, "--seed", seed]
    raise typer.Exit(run([str(a) for a in arguments]) or 0)


@config_app.command("check", epilog="Example: llmr config check config.yaml")
def config_check(
    file: Annotated[str | None, typer.Argument(metavar="[FILE]")] = None, as_json: AsJson = False
) -> None:
    """Check the configuration; exit 3 and say where where it cannot be used."""
    from llmr.cli.inspect import config_check as verb

    verb(file, as_json)


@config_app.command("show", epilog="Example: llmr config show --json")
def config_show(
    file: Annotated[str | None, typer.Argument(metavar="[FILE]")] = None, as_json: AsJson = False
) -> None:
    """Show the configuration in force, secrets hidden."""
    from llmr.cli.inspect import config_show as verb

    verb(file, as_json)


@config_app.command("schema", epilog="Example: llmr config schema > llmr.schema.json")
def config_schema(
    file: Annotated[str | None, typer.Argument(metavar="[FILE]", hidden=True)] = None,
    as_json: AsJson = False,
) -> None:
    """Print the JSON Schema of the configuration file."""
    from llmr.cli.output import print_json
    from llmr.config import schema

    print_json(schema())


@app.command(epilog="Example: llmr doctor")
def doctor(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Check the installation, the keys, the upstreams and the cache, and say what to mend."""
    from llmr.cli.doctor import run

    run(config, as_json)


@app.command(epilog="Example: llmr chaos --scenario S08 --config llmr.yaml")
def chaos(
    scenario: Annotated[
        list[str] | None, typer.Option("--scenario", "-s", metavar="ID", help="Only this one.")
    ] = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Run 16 provider faults against this configuration, simulated, and say what came of it."""
    from llmr.cli.chaos import run

    run(config, scenario or [], as_json)


@app.command(epilog="Example: llmr spend --by model --since 7d --always openai/gpt-5.4")
def spend(
    by: Annotated[
        list[str] | None,
        typer.Option("--by", metavar="GROUP", help="day, model, key, tag, upstream or source."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="DAY", help="From this UTC day on; 7d: seven days.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="DAY", help="Up to this UTC day, and with it.")
    ] = None,
    always: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="What the same tokens would have cost with it."),
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what was spent, and what that saved."""
    from llmr.cli.spend import run

    run(config, by or [], since, until, always, "json" if as_json else "csv" if as_csv else "table")


@catalogue_app.command("show", epilog="Example: llmr catalogue show")
def catalogue_show(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show where each upstream's rows are from, and how old they are."""
    from llmr.cli.catalogue import show

    show(config, as_json)


@catalogue_app.command("refresh", epilog="Example: llmr catalogue refresh --accept")
def catalogue_refresh(
    accept: Annotated[
        bool, typer.Option("--accept", help="Believe odd prices and lost models as well.")
    ] = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Fetch every upstream's rows, judge them, and keep the good ones for the next start."""
    from llmr.cli.catalogue import refresh

    refresh(config, as_json, keep=True, accept=accept)


@catalogue_app.command("diff", epilog="Example: llmr catalogue diff --json")
def catalogue_diff(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show what a refresh would change, and change nothing."""
    from llmr.cli.catalogue import refresh

    refresh(config, as_json, keep=False, accept=False)


@quality_app.command("evaluate", epilog="Example: llmr quality evaluate --data outcomes/")
def quality_evaluate(
    data: Annotated[
        Path | None, typer.Option(help="A folder of outcomes; without it, the held-out tables.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the predictions of quality on outcomes, or show what training measured."""
    from llmr.cli.quality import run as verb

    verb(data, as_json)


def main() -> None:
    """Run the command line; errors become one clear line and an exit code."""
    try:
        app()
    except ConfigError as error:
        _end(str(error), CONFIG)
    except ApiError as error:
        _end(error.message, UPSTREAM if error.status >= 500 or error.status == 429 else FAILED)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        Path("/dev/null").open("w")  # noqa: SIM115 - nobody reads on; stay silent
        sys.exit(1)


def _end(text: str, code: int) -> None:
    try:
        fail(text, code)
    except typer.Exit as ending:
        sys.exit(ending.exit_code)
