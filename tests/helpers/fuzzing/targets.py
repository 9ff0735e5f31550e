"""The parts of the program that read what a user or a crash may have left in a sweep; each runs one example.

    configuration   a YAML file and overrides, through `plan`
    spec            a trial's spec.yaml and a sweep's sweep.yaml, through what a rank reads and through `status`
    metrics         every other file of a sweep's folder, through `status`, `fit` and `report`
    checkpoint      a checkpoint's folder, through the search for the newest whole one

Commands run in this process through `amscale.cli.run`. Whatever they are given, they must end with 0, 1 or 2, say
in one line what is wrong with an input, and leave every result as it was.
"""

import contextlib
import io
import json
import random
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from amscale import config
from amscale.errors import InputError
from helpers.fuzzing import checks
from helpers.fuzzing.checks import Broken, command, contents, inside, limited, one_line, passes, same
from helpers.fuzzing.mutate import ODD, change_bytes, change_place, change_text, change_tree, damage_json, damage_yaml
from helpers.fuzzing.outside import Outside
from helpers.made_sweep import write_sweep

_CONFIGURATIONS = ("grammar.yaml", "vanilla_question_formation_cpu.yaml", "capacity_random_tokens_cpu.yaml")
_MORE = """
name: more
grid: {model.size: [100k, 1M], train.learning_rate: [1e-3, 3e-3], seed: [0, 1]}
model: {family: gpt2, layers: 2, dropout: 0.1}
data: {corpus: random_tokens, vocabulary: 32, size: 10k, sequence_length: 16, sequences: 20k, packing: stream}
train: {epochs: 3, batch_tokens: 4k, betas: [0.9, 0.95], warmup: 0.1, patience: 3, z_loss: 1e-4}
probes: {every: 100, sequences: 16}
launch: {machines: 1, processes_per_machine: 1, zero_stage: 2, micro_batch: 4, device: cpu, stalled_after: 60}
fit: {count: total, window: 0.1, hypotheses: [1, 2]}
"""
_KEYS = (
    "name", "storage", "seed", "model", "model.size", "model.family", "model.layers", "model.width", "model.heads",
    "data", "data.size", "data.corpus", "data.context", "data.packing", "data.copies", "data.tokenizer", "train",
    "train.steps", "train.epochs", "train.batch_tokens", "train.warmup", "train.betas", "launch.machines",
    "launch.micro_batch", "launch.processes_per_machine", "launch.cpus_per_process", "launch.zero_stage",
    "launch.device_memory", "launch.grace", "launch.scratch", "probes.every", "fit.hypotheses", "grid", "grid.seed",
    "grid.model.size", "grid.name", "a..b", ".", "",
)  # fmt: skip


_FACTS = {"world_size": 1, "zero_stage": 0, "precision": "fp32"}


class Targets:
    """Run examples on copies of one made sweep.

    Args:
        folder: an empty folder to work in.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = write_sweep(folder / "made", (6000, 24000), (8000, 20000), steps=20, layers=1)
        for path in self._made.glob("trials/*"):
            (path / "spec.yaml").write_text(self._spec_text)
            (path / "failures.jsonl").write_text(json.dumps({"time": 1.0, "reason": "a rank ended\nwith words"}) + "\n")
        unfinished = max(self._made.glob("trials/*"))
        (unfinished / "result.json").unlink()
        self._unfinished = unfinished.name
        self._outside = Outside(self._made)
        self._canary = folder / "canary"

    def check_undamaged(self) -> None:
        """Check that every target accepts undamaged input: a target that refuses everything would find nothing.

        Raises:
            Broken: something undamaged is refused.
        """
        from amscale.plan import plan
        from amscale.status import status
        from amscale.training.bookkeeping import Bookkeeping
        from amscale.training.checkpoint import newest_whole, restore
        from amscale.training.resolve import resolve
        from amscale.trials.trial_store import TrialStore

        place = self._folder / "whole"
        place.mkdir()
        sweep = self._copy(place / "results")
        trial = sweep / "trials" / self._unfinished
        for text in self._texts:
            (place / "experiment.yaml").write_text(text)
            passes(plan, [str(place / "experiment.yaml"), f"storage={place / 'plans'}"])
        for function in (status, self._read, lambda path: self._gather(path, False)):
            passes(function, [str(sweep)])
        self._outside.check_undamaged(place)
        passes(lambda path: resolve(path, []) and None, [str(trial / "spec.yaml")])
        self._resume(trial)
        checkpoints = self._checkpoints(_FACTS)
        newest = newest_whole(Bookkeeping(60), TrialStore(checkpoints.parent))
        if newest != checkpoints / "step_000000020" or restore(_Engine(), newest, _FACTS).step != 20:
            raise Broken(f"the newest whole checkpoint is not {newest}")

    def run(self, target: str, rng: random.Random, full: bool = False) -> None:
        """Run one example.

        Args:
            full: run all of `fit` and `report`, which takes seconds, and not only what reads for them.

        Raises:
            Broken: a command did what no input may make it do.
        """
        place = self._folder / "example"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        checks.encoding = rng.choice(checks.ENCODINGS)
        run = getattr(self, f"_{target}", None) or getattr(self._outside, target)
        with limited():
            run(place, rng, full)
        if self._canary.exists():
            raise Broken("an input ran code")

    # --- configuration

    def _configuration(self, place: Path, rng: random.Random, full: bool) -> None:
        from amscale.plan import plan

        sweep = self._copy(place / "results")
        before = contents(sweep)
        text = rng.choice(self._texts)
        tree = yaml.safe_load(text) | {"storage": str(sweep.parent)}
        text = yaml.safe_dump(tree, sort_keys=False)
        file = place / "experiment.yaml"
        kind = rng.random()
        if kind < 0.6:
            for _ in range(rng.randrange(1, 4)):
                tree = change_tree(rng, tree)
            text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
        elif kind < 0.75:
            text = change_text(rng, text, self._canary)
        file.write_bytes(change_bytes(rng, text.encode()) if kind > 0.9 else text.encode("utf-8", "surrogatepass"))
        if kind > 0.98:
            change_place(rng, file)
        overrides = [self._override(rng) for _ in range(rng.choice([0, 0, 1, 3]) if kind < 0.75 else 2)]
        with inside(place):  # a damaged `storage` may name a folder anywhere below
            command(plan, [str(file), *overrides, *([] if rng.random() < 0.8 else ["--commands"])])
        same(before, contents(sweep))

    def _override(self, rng: random.Random) -> str:
        key, value = rng.choice(_KEYS), rng.choice(ODD)
        text = str(value)[:200] if rng.random() < 0.7 else yaml.safe_dump(value, default_flow_style=True)[:5000]
        return f"{key}={text}".replace("\x00", "")  # no command line can hold a NUL

    @cached_property
    def _texts(self) -> list[str]:
        from amscale.files import packaged

        return [(packaged("configs") / name).read_text(encoding="utf-8") for name in _CONFIGURATIONS] + [_MORE]

    # --- spec

    def _spec(self, place: Path, rng: random.Random, full: bool) -> None:
        from amscale.status import status
        from amscale.training.resolve import resolve

        sweep = self._copy(place / "results")
        trial = sweep / "trials" / self._unfinished
        file = rng.choice([trial / "spec.yaml"] * 4 + [sweep / "sweep.yaml"])
        damage_yaml(rng, file, self._canary)
        before = contents(sweep)
        with inside(place):
            command(lambda path: resolve(path, []) and None, [str(trial / "spec.yaml")])
            command(status, [str(sweep)])
            command(lambda path: self._gather(path, full), [str(sweep)])
            if rng.random() < 0.2:
                command(self._create, [str(sweep)])
        same(before, contents(sweep))

    @cached_property
    def _spec_text(self) -> str:
        """Return the text of a spec whose token store exists."""
        from amscale import data
        from amscale.trials.records import Placement
        from amscale.trials.trial_store import TrialStore

        cell = config.expand(config.load("grammar.yaml", ["model.size=25k", "data.size=2k", "data.documents=500"]))[0]
        cell = cell.model_copy(update={"data": cell.data.model_copy(update={"validation": 100})})
        store = data.prepare(cell.data, self._folder / "tokens")
        placement = Placement(1, 1, 1, "cpu", 0, "fp32", micro_batch=4, accumulation=2)
        folder = TrialStore(self._folder / "spec")
        folder.write_spec(cell, placement, store.folder, "0" * 12)
        return folder.spec.read_text()

    @staticmethod
    def _create(path: str) -> None:
        from amscale.trials.sweep_store import SweepStore

        SweepStore(Path(path)).create(config.load("grammar.yaml"))

    # --- metrics

    def _metrics(self, place: Path, rng: random.Random, full: bool) -> None:
        from amscale.fit import fit
        from amscale.report import report
        from amscale.status import status

        sweep = self._copy(place / "results")
        for _ in range(rng.choice([1, 1, 2])):
            trial = rng.choice(sorted((sweep / "trials").iterdir()))
            names = ["result.json", "metrics.jsonl"] * 4 + ["failures.jsonl", "log.txt", "out_of_memory.jsonl", "start"]
            damage_json(rng, trial / rng.choice(names))
        if rng.random() < 0.1:
            (sweep / "fit.json").write_text(rng.choice(["{}", "[]", '{"format": 1}', '{"estimates": 3}', "\x00"]))
        if rng.random() < 0.03:
            change_place(rng, rng.choice([sweep / "trials", *(sweep / "trials").iterdir()]))
        before = contents(sweep)
        command(status, [str(sweep)])
        if full:
            command(fit, [str(sweep), "--resamples", "100"])
            command(report, [str(sweep)])
        else:
            command(self._read, [str(sweep)])
            command(lambda path: self._gather(path, full), [str(sweep)])
            command(lambda path: self._resume(Path(path) / "trials" / self._unfinished), [str(sweep)])
        same(before, contents(sweep), but=self._unfinished)

    @staticmethod
    def _read(path: str) -> None:
        """Read what `fit` reads before it fits."""
        from amscale.scaling.dstar import cell_criteria
        from amscale.scaling.reading import read_sweep

        cell_criteria(read_sweep(path).cells(), 0.2)

    def _gather(self, path: str, full: bool) -> None:
        """What `report` does but for drawing; estimates are those of the sweep before it was damaged."""
        from amscale.reporting.chart import palette_of
        from amscale.reporting.figures import report_charts
        from amscale.reporting.page import render_page
        from amscale.reporting.report_data import read_report_data

        report = read_report_data(path, None if full else self._fit)
        charts = report_charts(report)
        render_page(report, charts, palette_of(charts))

    @cached_property
    def _fit(self) -> Any:
        from amscale.scaling.fit import fit_sweep

        return fit_sweep(self._made, resamples=100)

    @staticmethod
    def _resume(trial: Path) -> None:
        """Read a trial's records as its actor and rank 0 do when it continues."""
        from amscale.training.metrics_writer import cut_after
        from amscale.trials.metrics import MetricsTail

        if trial.is_dir():
            MetricsTail(trial / "nothing.jsonl").read()
            tail = MetricsTail(trial / "metrics.jsonl")
            tail._read = 0
            tail.read()
            cut_after(trial / "metrics.jsonl", 10)

    # --- checkpoint

    def _checkpoint(self, place: Path, rng: random.Random, full: bool) -> None:
        from amscale.training.bookkeeping import Bookkeeping
        from amscale.training.checkpoint import newest_whole, restore
        from amscale.training.engine import EngineError
        from amscale.trials.trial_store import TrialStore

        sweep = self._copy(place / "results")
        folder = sweep / "trials" / self._unfinished / "checkpoints"
        shutil.copytree(self._checkpoints(_FACTS), folder)
        before = contents(sweep)
        second = max(folder.iterdir())
        for _ in range(rng.choice([1, 1, 2, 4])):
            files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
            if not files:
                break
            file = rng.choice(files)
            if rng.random() < 0.2:
                change_place(rng, rng.choice([file, second, second / "engine"]))
            else:
                damage_json(rng, file)
            if rng.random() < 0.1:
                change_place(rng, folder / rng.choice(["step_x", "step_", "step_99999999999999999999", "step_3"]))
        if rng.random() < 0.02:
            change_place(rng, folder)
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                newest = newest_whole(Bookkeeping(60), TrialStore(folder.parent))
                if newest is not None:
                    restore(_Engine(), newest, _FACTS)
        except (InputError, EngineError) as refusal:
            one_line(str(refusal))
        if "Traceback" in said.getvalue():
            raise Broken(said.getvalue())
        same(before, contents(sweep))

    @cached_property
    def _accelerator(self) -> Any:
        from accelerate import Accelerator

        return Accelerator(cpu=True)

    def _checkpoints(self, facts: dict[str, Any]) -> Path:
        from amscale.trials.objects import checksums

        made = self._folder / "checkpoints"
        for step in (10, 20) if not made.exists() else ():
            checkpoint = made / f"step_{step:09d}"
            (checkpoint / "engine").mkdir(parents=True)
            (checkpoint / "engine" / "mp_rank_00_model_states.pt").write_bytes(bytes(range(256)) * 4)
            (checkpoint / "latest").write_text("engine")
            progress = {"step": step, "tokens": 100 * step, "seconds": 1.5, "validation_least": 2.0, "engine": facts}
            (checkpoint / "progress.json").write_text(json.dumps(progress))
            (checkpoint / "checksums.json").write_text(json.dumps(checksums(checkpoint, but="checksums.json")))
        return made

    def _copy(self, storage: Path) -> Path:
        (storage / "made").parent.mkdir(exist_ok=True)
        (storage / "tokens").symlink_to(self._folder / "tokens")
        return Path(shutil.copytree(self._made, storage / "made"))


class _Engine:
    """Load anything, as DeepSpeed does where the files are whole."""

    def load_checkpoint(self, folder: str, tag: str) -> None:
        assert Path(folder).is_dir()
