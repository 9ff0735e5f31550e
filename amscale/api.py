"""The public surface: what commands, notebooks and scripts call.

    import amscale

    sweep = amscale.Sweep("quick.yaml", seed=[0, 1])
    sweep.plan()                    # a DataFrame: what each trial would be and cost
    sweep.run()                     # trains what has no result yet
    sweep.results()                 # a DataFrame: one row a trial
    fit = sweep.fit()
    fit["k_chinchilla"].interval

Nothing here ends the process, changes its environment, or installs signal handlers. A sweep runs in a new process,
`python -m amscale.sweep`, so that neither a Ray that was imported before nor the end of a cluster touches the caller.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amscale.config import Experiment, load, parse
from amscale.errors import InputError, no_sweep
from amscale.fitted import Fit, fit_folder
from amscale.reporting.archive import archive_sweep
from amscale.reporting.frames import KINDS, record_rows, result_row, trials_in, write_frames
from amscale.trials.archive import is_archive
from amscale.trials.objects import ObjectStore, is_uri
from amscale.trials.sweep_store import own_folder

if TYPE_CHECKING:
    import pandas as pd

    from amscale.planning.plan import SweepPlan
    from amscale.reporting.comparison import Comparison
    from amscale.reporting.terminal import TrialStatus
    from amscale.trials.cleaning import TrialCheckpoints
    from amscale.trials.records import TrialResult


class NotStarted(InputError):
    """What is asked of a sweep can be told only once it has been started."""


class Sweep:
    """A grid of trials, before, while and after it runs.

    Args:
        source: a YAML file or the name of one that comes with the package; its content as a mapping; an Experiment; or
            the folder or URI of a sweep that has been started, `<storage>/<name>`, or its archive.
        overrides: settings on top of it, as `key=value` texts or as a mapping of dotted keys.
        settings: the same as keywords, with `__` in the place of the dot: `model__size="1M"`, `seed=[0, 1]`.

    Raises:
        InputError: a key or value that is not allowed, or no such file or sweep.
    """

    def __init__(
        self,
        source: str | Path | Mapping[str, Any] | Experiment = "quick.yaml",
        overrides: Sequence[str] | Mapping[str, Any] = (),
        **settings: Any,
    ) -> None:
        given: list[str | tuple[str, Any]] = list(overrides.items() if isinstance(overrides, Mapping) else overrides)
        given += [(key.replace("__", "."), value) for key, value in settings.items()]
        self._address: str | None = None
        self._experiment: Experiment | None = None
        if isinstance(source, Experiment):
            tree = source.model_dump(mode="json", exclude_unset=True)
            self._experiment = load(tree, given) if given else source
        elif isinstance(source, Mapping):
            self._experiment = load(source, given)
        elif _is_sweep(str(source)):
            if given:
                raise InputError(f"{source}: a sweep that has been started; settings go with a configuration")
            self._address = str(source)
        else:
            self._experiment = load(str(source), given)

    @classmethod
    def started(cls, address: str | Path) -> "Sweep":
        """Return a sweep that has been started.

        Args:
            address: its folder or URI, `<storage>/<name>`, or its archive.

        Raises:
            InputError: no sweep there.
        """
        if not _is_sweep(str(address)):
            raise no_sweep(address)
        return cls(address)

    @property
    def experiment(self) -> Experiment:
        """The settings of the sweep and its grid.

        Raises:
            InputError: the sweep.yaml of a started sweep cannot be read.
        """
        if self._experiment is None:
            from amscale.trials.sweep_store import SweepStore

            with self._opened() as path:
                tree = SweepStore(path).read_marker()
            tree.pop("format", None)
            try:
                experiment = parse(tree)
            except InputError as error:
                raise InputError(f"{self.address}/sweep.yaml: {error}") from None
            # A folder may have been moved since it was started.
            if not is_uri(self.address) and not is_archive(self.address):
                path = Path(self.address).absolute()
                experiment = experiment.model_copy(update={"storage": str(path.parent), "name": path.name})
            self._experiment = experiment
        return self._experiment

    @property
    def address(self) -> str:
        """Where the sweep is: its folder, or its URI."""
        if self._address is None:
            experiment = self.experiment
            if is_uri(experiment.storage):
                return ObjectStore(experiment.storage).at(experiment.name).uri
            return str(Path(experiment.storage).expanduser() / experiment.name)
        return self._address

    def plan(self) -> "pd.DataFrame":
        """Return what each trial would be and cost, one row a trial; nothing is started.

        Raises:
            InputError: a size that no shape reaches, a corpus smaller than D, a model that fits no machine …
        """
        import pandas as pd

        if self.experiment.launch.address is not None:  # joining a Ray cluster would change this process
            return pd.DataFrame(self._command("plan", progress=False)["trials"])
        return self._plan_here().to_frame()

    def _plan_here(self, card: str | None = None) -> "SweepPlan":
        """Plan in this process, which joins the Ray cluster if the settings name one: for commands.

        Args:
            card: a model of GPU that machines are assumed to have.
        """
        from amscale.cluster.resources import planned_resources
        from amscale.planning.plan import plan_sweep
        from amscale.trials.location import storage_folder

        experiment = self.experiment
        if card is not None:
            launch = experiment.launch.model_copy(update={"device": "cuda"})
            experiment = experiment.model_copy(update={"launch": launch})
        with planned_resources(experiment.launch, card) as resources:
            return plan_sweep(experiment, storage_folder(experiment), resources, build=False)

    def run(self, progress: bool = True) -> "pd.DataFrame":
        """Train every trial that has no result yet, estimate, and write the report; return `results()`.

        Args:
            progress: show the plan, the progress and the estimates on standard error.

        Raises:
            InputError: bad settings, too few machines, or a sweep that another driver runs; nothing was started.
            TrialsFailed: some trials ended without a result; the others have theirs.
            ClusterLost: the Ray cluster is gone; the same call continues from the checkpoints.
            Preempted: SIGTERM stopped the sweep; trials wrote checkpoints, and the same call continues.
            KeyboardInterrupt: the same after an interrupt.
        """
        from amscale.errors import ClusterLost, TrialsFailed

        found = self._command("sweep", progress)
        if found.get("lost"):
            raise ClusterLost(found["error"])
        if found["failed"]:
            raise TrialsFailed(found["failed"])
        return self.results()

    def status(self) -> "list[TrialStatus]":
        """Return the state of every trial that has been started, by N, D and seed."""
        from amscale.reporting.terminal import trial_status

        with self._opened() as path:
            return [trial_status(trial) for trial in trials_in(path)]

    def trial_results(self) -> "list[TrialResult]":
        """Return the result of every trial that has one, typed, by N, D and seed."""
        with self._opened() as path:
            return [result for trial in trials_in(path) if (result := trial.read_result()) is not None]

    def results(self) -> "pd.DataFrame":
        """Return one row for each trial with a result: N, D, seed, losses in nats per token, costs, settings."""
        import pandas as pd

        return pd.DataFrame([result_row(result, self.experiment) for result in self.trial_results()])

    def metrics(self, kind: str = "train") -> "pd.DataFrame":
        """Return the records of every trial, one row a record.

        Args:
            kind: `train` (one a step), `validation`, or `probe`, whose values become columns.

        Raises:
            InputError: another kind.
        """
        import pandas as pd

        with self._opened() as path:
            return pd.DataFrame(record_rows(trials_in(path), kind))

    def export(self, output: str | Path | None = None, format: str = "csv", probes: str = "all") -> dict[str, Path]:
        """Write `results()` and each kind of `metrics()` that has rows as tables; return the files by name.

        Args:
            output: the folder to write to; `exports` in the sweep's own if None.
            format: csv or parquet; or archive, one file of which every number of fit and report is made again.
            probes: of an archive: all records of the probes, only the last of each trial, or none.

        Raises:
            InputError: another format, or a folder that cannot be written.
        """
        with self._opened() as path:
            folder = own_folder(self.address, path) / "exports" if output is None else Path(output).expanduser()
            if format == "archive":
                return {"archive": archive_sweep(path, self.experiment, folder, probes)}
            return write_frames(
                {"results": self.results(), **{kind: self.metrics(kind) for kind in KINDS}}, folder, format
            )

    def compare(self, other: "Sweep") -> "Comparison":
        """Return the settings that differ, losses of common cells side by side, and estimates of both fits.

        Raises:
            InputError: one of them has not been started.
        """
        from amscale.reporting.comparison import compare_sweeps

        trees = self.experiment.model_dump(mode="json"), other.experiment.model_dump(mode="json")
        with self._opened() as own, other._opened() as others:
            return compare_sweeps((self.address, other.address), (own, others), trees)

    def clean(self, remove: bool = False) -> "list[TrialCheckpoints]":
        """Return the checkpoints of each trial that has some, and remove them if asked to; results stay.

        Raises:
            InputError: no such sweep, or one that a driver runs.
        """
        from amscale.trials.cleaning import clean_sweep

        return clean_sweep(self.address, remove)

    def _repr_html_(self) -> str:
        """Show the plan of a sweep that has not been started, and the results of one that has."""
        with suppress(NotStarted):
            return str(self.results()._repr_html_())  # type: ignore[operator]
        return str(self.plan()._repr_html_())  # type: ignore[operator]

    def _opened(self) -> Any:
        from amscale.trials.sweep_store import open_sweep

        if not _is_sweep(self.address):
            raise NotStarted(f"{self.address}: no sweep has been started there; call run(), or give <storage>/<name>")
        return open_sweep(self.address)

    def fit(
        self,
        count: str | None = None,
        window: float | None = None,
        threshold: float | None = None,
        hypotheses: Sequence[float] | None = None,
        resamples: int = 400,
        where: str | None = None,
        tune: Sequence[str] | None = None,
    ) -> Fit:
        """Estimate from the trials that have a result; what is not given is as the sweep's configuration says.

        Args:
            count: the convention for N: non_embedding, non_embedding_with_norms, with_head, total or active.
            window: iterations of the D* criterion, in steps or as a share of the run.
            threshold: threshold of the D* criterion, nats².
            hypotheses: exponents k of N ∝ D^k to test.
            resamples: bootstrap refits.
            where: fit only the trials with these settings, `key=value` or several joined by commas.
            tune: keys of settings of which each cell takes its best value; by default those under `tune`.

        Raises:
            InputError: a setting that is not allowed, or no trial with a result.
        """
        with self._opened() as path:
            return fit_folder(path, count, window, threshold, hypotheses, resamples, where, tune, self.address)

    def report(self, fit: Fit | None = None, output: str | Path | None = None) -> Path:
        """Write `report.html` and `figures/` into the sweep's folder or another one, and return the page.

        Args:
            fit: the estimates to report; otherwise those of fit.json, made anew where the trials have changed.
            output: the folder to write to; the sweep's own if None.

        Raises:
            InputError: no trial has a result, or the folder cannot be written.
        """
        from amscale.reporting.page import write_report

        with self._opened() as path:
            return write_report(path, fit, output, self.address)

    def _command(self, name: str, progress: bool) -> dict[str, Any]:
        """Run a command on this experiment in a new process, and return the document that it prints."""
        from amscale.subcommand import run_command

        return run_command(name, self.experiment.model_dump(mode="json", exclude_unset=True), progress)


def _is_sweep(address: str) -> bool:
    """Return whether a folder is that of a started sweep, or an archive; a URI may be one, seen when it is opened."""
    if is_uri(address):
        return not address.endswith((".yaml", ".yml"))
    try:
        return (Path(address) / "sweep.yaml").is_file() or is_archive(address)
    except OSError:  # no path: a name too long, say
        return False
