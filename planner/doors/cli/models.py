"""The commands `apportion train` and `apportion models list | show | evaluate`."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.planner.doors.cli._common import INTERRUPTED, interrupts, print_json, say
from apportion.planner.doors.cli._files import check_outputs, given_paths, output, write_output
from apportion.planner.doors.cli._json import JsonFileCommand
from apportion.planner.doors.cli._tables import table
from apportion.planner.doors.cli._workflows import Workflows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from apportion.models.persistence import Manifest
    from apportion.models.training import Trained, TrainingData
    from apportion.settings import TelemetrySettings
    from apportion.telemetry.importers import SkipLog

MESSAGES = 3
"""Messages about skipped input that are shown; JSON holds all."""

FromOption = Annotated[
    list[str] | None,
    typer.Option("--from", metavar="STORE|PATH", help="Use this store, or these logs, instead; may be repeated."),
]
StoreOption = Annotated[
    Path | None, typer.Option("--store", metavar="FILE", help="The telemetry store; default: telemetry.store_path.")
]
FolderOption = Annotated[
    Path | None,
    typer.Option("--models", metavar="DIR", help="The folder of the models; default: telemetry.models_path."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    short_help="List, show and evaluate trained models.",
    help="""List, show and evaluate the models that `apportion train` has saved.

Every training saves a new version, and the latest is used. A version that is damaged, or was written by something
else, is refused; planning then goes on with documented priors and says so.

Example: apportion models show
""",
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    summary = "Learn from past workflows what the next ones will need."
    app.command("train", cls=JsonFileCommand, short_help=summary, context_settings={"allow_extra_args": True})(
        train_command
    )
    app.add_typer(commands, name="models")


def train_command(
    context: typer.Context,
    *,
    sources: FromOption = None,
    store: StoreOption = None,
    folder: FolderOption = None,
    report: Annotated[bool, typer.Option("--report", help="Show how good the models are, source by source.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Train even where there is nothing new.")] = False,
    json_file: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE", help="Write the result as JSON; - prints it instead of text."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no summary.")] = False,
) -> None:
    """Learn from past workflows what the next ones will need, and save that as a new version.

    Every version is learned from all workflows of the store at once: nothing is added to an older version, because
    its calibration must be checked on workflows that it has not seen. Where the store holds the same workflows as at
    the last training, that version is kept. With --from, other logs are used instead of the store; to learn from them
    along with the rest, import them.

    \b
    Examples:
      apportion train --report
      apportion train --from 'logs/**/*.jsonl' --models DIR --json result.json
    """  # noqa: D301  (\b keeps the lines of the examples apart)
    _refuse_arguments(context.args)
    settings = _settings(store, folder)
    written = None if json_file is None else output("--json", json_file)
    if written is not None:
        check_outputs([written], list(sources or ()), given_paths(list(sources or ())))
    silent = quiet or (written is not None and written.to_stdout)
    with interrupts() as pressed:
        try:
            with _progress(show=not quiet) as bar:
                workflows = Workflows(settings.database, sources or (), each=bar.step)
                manifest, trained = _train(workflows, settings, bar, force)
        except BaseException as error:  # compiled code may make another exception of an interrupt
            if not (pressed.pressed or isinstance(error, KeyboardInterrupt)):
                raise
            typer.echo("interrupted; the models are as they were.", err=True)
            raise typer.Exit(INTERRUPTED) from None
    if not silent:
        _show_training(manifest, settings.models_folder, new=trained is not None, report=report)
        _show_skipped(workflows.skipped)
    if written is not None:
        import json

        result = _training_json(manifest, settings, workflows.skipped, new=trained is not None)
        write_output(written, json.dumps(result, indent=2) + "\n")


def _refuse_arguments(paths: Sequence[str]) -> None:
    """Say how logs are named, to whoever gives them without an option.

    Raises:
        InputError: There is an argument.
    """
    if not paths:
        return
    import shlex

    from apportion.errors import InputError

    there = all(Path(path).exists() for path in paths)
    sources = " ".join(f"--from {shlex.quote(path)}" for path in paths) if there else "--from PATH"
    hint = f"To learn from logs: apportion train {sources}"
    raise InputError(f"train takes no arguments: {' '.join(map(repr, paths))}", hint=hint)


@commands.command("list", short_help="List the saved versions.")
def list_command(*, folder: FolderOption = None, as_json: JsonOption = False) -> None:
    """List the saved versions, the oldest first.

    Example: apportion models list --json
    """
    from apportion.errors import InputError
    from apportion.models.persistence import current_version, read_manifest, versions
    from apportion.planner.report.figures import plain

    place = _settings(None, folder).models_folder
    found: dict[str, Manifest | InputError] = {}
    for name in versions(place):
        try:
            found[name] = read_manifest(place, name)
        except InputError as error:
            found[name] = error
    try:
        current = current_version(place)
        problem = f"the version in use, {current}, is missing" if current not in {None, *found} else None
    except InputError as error:
        current, problem = None, str(error)
    if as_json:
        print_json(
            {
                "schema": "apportion.models/1",
                "folder": str(place),
                "current": current,
                "problem": problem,
                "versions": [_version_json(name, each) for name, each in found.items()],
            }
        )
        return
    say(f"models: {plain(str(place))}")
    if problem is not None:
        say(f"  {plain(problem)}")
    if not found:
        say("  none yet; train them with: apportion train")
        return
    say()
    for line in table(["Version", "Trained", "Workflows", "Models"], [_row(*each) for each in found.items()]):
        say(line)
    say(f"in use: {current or 'none'}")


@commands.command(short_help="Show what a version was learned from, and how good it is.")
def show(
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Its name or beginning; default: the one in use.")
    ] = None,
    *,
    folder: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a version was learned from, and how good it is on workflows that it had not seen.

    The models are loaded as well, so that a damaged file is noticed.

    Example: apportion models show --json
    """
    from apportion.models.persistence import find_version, load_models

    place = _settings(None, folder).models_folder
    loaded = load_models(place, version and find_version(place, version))
    assert loaded.manifest is not None
    if as_json:
        print_json({"schema": "apportion.model/1", "folder": str(place), **loaded.manifest.model_dump(mode="json")})
        return
    _show_manifest(loaded.manifest, place)
    _show_metrics(loaded.manifest.metrics)


@commands.command(short_help="Test a version on workflows.")
def evaluate(
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="Its name or beginning; default: the one in use.")
    ] = None,
    *,
    sources: FromOption = None,
    store: StoreOption = None,
    folder: FolderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Test a version on the workflows of the store, or on other logs.

    On workflows from which the version has learned the figures flatter; `show` has those of held-out workflows.

    Example: apportion models evaluate --from 'new-logs/*.jsonl'
    """
    from apportion.models.persistence import find_version, load_models
    from apportion.models.training import TrainingData, evaluate

    settings = _settings(store, folder)
    place = settings.models_folder
    loaded = load_models(place, version and find_version(place, version))
    assert loaded.manifest is not None
    with _progress(show=not as_json) as bar:
        workflows = Workflows(settings.database, sources or (), each=bar.step)
        bar.begin("reading")
        data = TrainingData.of(workflows)
        bar.begin("forecasting")
        if not data.workflows:
            raise workflows.nothing_to("forecast")
        metrics = evaluate(loaded.models, workflows)
    same = data.fingerprint == loaded.manifest.data.fingerprint
    if as_json:
        about = {"version": loaded.manifest.version, "same_as_trained_on": same, "data": data.model_dump()}
        found = {"metrics": metrics, "degraded": loaded.degraded, "skipped": _skipped_json(workflows.skipped)}
        print_json({"schema": "apportion.evaluation/1", **about, **found})
        return
    say(f"version {loaded.manifest.version} on {_workflows(data)} of {workflows.place}")
    if same:
        say("It has learned from these very workflows: the figures flatter.")
    _show_metrics(metrics)
    _show_skipped(workflows.skipped)


def _train(
    workflows: Workflows,
    settings: TelemetrySettings,
    bar: _Progress,
    force: bool,  # noqa: FBT001  (as parsed)
) -> tuple[Manifest, Trained | None]:
    """Train and save, or return the version that is up to date."""
    from apportion.models.persistence import prepare_folder, save_models
    from apportion.models.training import TrainingData, train

    bar.begin("reading")
    data = TrainingData.of(workflows)
    if not data.workflows:
        raise workflows.nothing_to("learn from")
    kept = None if force else _up_to_date(settings.models_folder, data)
    if kept is not None:
        return kept, None
    prepare_folder(settings.models_folder)
    trained = train(workflows, progress=lambda name: bar.begin(f"training {name}"))
    bar.begin("saving")
    manifest = save_models(
        settings.models_folder,
        trained.models,
        data,
        created_at=datetime.now(UTC),
        metrics=trained.metrics,
        untrained=trained.untrained,
    )
    return manifest, trained


def _up_to_date(folder: Path, data: TrainingData) -> Manifest | None:
    """Return the version in use where the same software has trained all its models on the same data, and it loads."""
    from apportion.errors import InputError
    from apportion.models.persistence import load_models, read_manifest, software
    from apportion.models.training import TRAINABLE

    try:
        manifest = read_manifest(folder)
        same = manifest.data == data and manifest.software == software()
        if same and {*manifest.files, *manifest.untrained} == set(TRAINABLE):
            return load_models(folder).manifest
    except InputError:
        return None
    return None


def _settings(store: Path | None, folder: Path | None) -> TelemetrySettings:
    from apportion.settings import load_settings

    overrides = {"telemetry.store_path": store, "telemetry.models_path": folder}
    return load_settings(overrides=overrides).settings.telemetry


class _Progress:
    """Says on a progress bar what is done; without a bar, nothing."""

    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self._what = ""
        self._done = 0
        self._task = None if bar is None else bar.add_task("", total=None)

    def begin(self, what: str) -> None:
        """Begin with something new."""
        self._what, self._done = what, 0
        self._update()

    def step(self) -> None:
        """Note another workflow."""
        self._done += 1
        self._update()

    def _update(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, description=f"{self._what}: {self._done:,} workflows")


@contextmanager
def _progress(*, show: bool) -> Iterator[_Progress]:
    """Show a progress bar on standard error, where that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not (show and console.is_terminal):
        yield _Progress(None)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Progress(bar)


def _show_training(manifest: Manifest, folder: Path, *, new: bool, report: bool) -> None:
    say(f"{'trained' if new else 'nothing new: kept'} version {manifest.version}")
    _show_manifest(manifest, folder, title=False)
    if report:
        _show_metrics(manifest.metrics)
    elif new:
        say("How good they are: apportion models show")


def _show_manifest(manifest: Manifest, folder: Path, *, title: bool = True) -> None:
    from apportion.models.training import TRAINABLE
    from apportion.planner.report.figures import plain

    if title:
        say(f"version {manifest.version}")
    say(f"  in {plain(str(folder))}")
    say(f"  trained {manifest.created_at:%Y-%m-%d %H:%M} UTC on {_workflows(manifest.data)}")
    for source, count in manifest.data.sources.items():
        say(plain(f"    {source}: {count:,}"))
    if manifest.data.without_content:
        say(f"  {manifest.data.without_content:,} of them without texts, which the models then do not read")
    for name, file in manifest.files.items():
        say(f"  {name}: {TRAINABLE[name].about}; {file.bytes / 1000:,.0f} kB")
    for name, reason in manifest.untrained.items():
        say(plain(f"  {name}: not trained ({reason})"))


_HEADERS = ["Source", "Fore-\ncasts", "Top 1", "Sure", "Hits", "Hits,\nnamed", "Error", "Noise"]

_LEGEND = """\
Sure: share of forecasts that do not abstain. Hits: share of those that came
true; named: of those that name something, not the end. Error: expected
calibration error of all, 10 equal bins. Noise: what a perfect one would show."""

_DEMAND_COLUMNS = {
    "workflows": "Work-\nflows",
    "examples": "Exam-\nples",
    "loss": "Loss",
    "boosted": "Boosted",
    "coverage_90": "Within\n90 %",
    "upper_by_lower": "Upper /\nlower",
}
"""Columns of the figures of demand, in this order; a row has some of them."""

_DEMAND_LEGEND = {
    "loss": "Loss: mean pinball loss over the quantiles, of logarithms; less is better.",
    "boosted": "Boosted: whether gradient boosting won over shrunk quantiles.",
    "coverage_90": "Within 90 %: share within the 90 % interval; 90 % is right.",
    "upper_by_lower": "Upper / lower: its upper by its lower bound, the median of all.",
}


def _show_metrics(metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Show the figures of each model as a table, each kind of table with its legend."""
    legends: dict[str, None] = {}
    for name, rows in metrics.items():
        say()
        say(name)
        if all("hit_rate" in row for row in rows):
            lines = table(_HEADERS, [_metric_row(row) for row in rows])
            legends[_LEGEND] = None
        elif all("needed" in row for row in rows):
            lines = table(_NEED_HEADERS, [_need_row(row) for row in rows])
            legends[_NEED_LEGEND] = None
        else:
            columns = [key for key in _DEMAND_COLUMNS if any(key in row for row in rows)]
            headers = ["Forecast", *(_DEMAND_COLUMNS[key] for key in columns)]
            lines = table(headers, [_demand_row(row, columns) for row in rows])
            legends |= dict.fromkeys(_DEMAND_LEGEND[key] for key in columns if key in _DEMAND_LEGEND)
        for line in lines:
            say(line)
    if legends:
        say()
    for legend in legends:
        say(legend)


_NEED_HEADERS = ("Source", "Runs", "Fore-\ncasts", "Needed", "Brier\nscore", "Calibration\nerror")
_NEED_LEGEND = """\
Needed: share of the tools at hand that runs used. Brier score: mean squared
error; less is better."""


def _need_row(row: Mapping[str, Any]) -> list[str]:
    from apportion.planner.report.figures import percent

    figures = [f"{row[key]:,.3f}" for key in ("brier", "calibration_error")]
    return [str(row["source"]), f"{row['runs']:,}", f"{row['forecasts']:,}", percent(row["needed"]), *figures]


def _demand_row(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    return [str(row.get("forecast", "")).replace("_", " "), *(_demand_cell(key, row.get(key)) for key in columns)]


def _demand_cell(key: str, value: Any) -> str:
    from apportion.planner.report.figures import percent

    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "coverage_90":
        return percent(value)
    return f"{value:,.3f}" if key == "loss" else f"{value:,}"


def _metric_row(row: Mapping[str, Any]) -> list[str]:
    from apportion.planner.report.figures import percent

    shares = [percent(row[key]) for key in ("top_1", "coverage", "hit_rate", "hit_rate_named")]
    return [row["source"], f"{row['forecasts']:,}", *shares] + [
        f"{row[key]:.3f}" for key in ("calibration_error", "calibration_noise")
    ]


def _workflows(data: TrainingData) -> str:
    from apportion.planner.report.figures import count

    return count(data.workflows, "workflow")


def _row(name: str, found: Any) -> list[str]:
    from apportion.errors import InputError

    if isinstance(found, InputError):
        return [f"{name} cannot be used: {found.message}", "-", "-", "-"]
    return [name, f"{found.created_at:%Y-%m-%d %H:%M}", f"{found.data.workflows:,}", f"{len(found.files)}"]


def _version_json(name: str, found: Any) -> dict[str, Any]:
    from apportion.errors import InputError

    if isinstance(found, InputError):
        return {"version": name, "problem": str(found)}
    whole = found.model_dump(mode="json")
    return {key: whole[key] for key in ("version", "created_at", "software", "data", "files", "untrained")}


def _training_json(manifest: Manifest, settings: TelemetrySettings, skipped: SkipLog, *, new: bool) -> dict[str, Any]:
    about = {"schema": "apportion.training/1", "folder": str(settings.models_folder), "new": new}
    return {**about, "skipped": _skipped_json(skipped), **manifest.model_dump(mode="json")}


def _skipped_json(skipped: SkipLog) -> dict[str, Any]:
    messages = [str(message) for message in skipped.messages]
    return {"files": skipped.files, "lines": skipped.lines, "messages": messages}


def _show_skipped(skipped: SkipLog) -> None:
    from apportion.planner.report.figures import count, plain

    if skipped.files or skipped.lines:
        say(f"skipped: {count(skipped.files, 'file')}, {count(skipped.lines, 'line')}; for example")
        for message in skipped.messages[:MESSAGES]:
            say(f"  {plain(str(message))}")
