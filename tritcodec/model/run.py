"""Quantising a model: every config in one run, from what is there already, with any workers."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import TritError
from ..header import MAJOR, MINOR, TritEntry, encode_header
from ..reader import PathLike, open_file
from ..reader import naming as in_file
from ..version import __version__
from ..writer import sync_names
from . import index
from .assemble import Encoded, Found
from .companions import check_companions
from .folder import clear, copy_companions, flush
from .index import INDEX_NAME, TRIT_NAME
from .plan import DEPTHS, Config, Planned, check_budget, plan
from .policy import Policy
from .source import ModelSource, Shard, SourceTensor, will_read
from .spool import Spool
from .tasks import Surveyed, Work, naming, survey_raw
from .workers import Task, announced, run_all

# Is told of every step: the phase, "survey" or "encode"; a tensor; weights done of it; weights in all;
# and whether an earlier run did them.
Progress = Callable[[str, str, int, int, bool], None]


def silent(phase: str, name: str, weights: int, total: int, earlier: bool) -> None:
    """A Progress that says nothing."""


@dataclass(frozen=True)
class Job:
    """What is to be made of a model; all of it checked that can be without reading weights.

    Raises TritError for a policy that asks the impossible, and for whatever the
    directory of a file could not hold: names, shapes, dtypes; OSError where another file of
    the folder cannot be read.
    """

    source: ModelSource
    configs: Sequence[Config]
    policy: Policy
    work: Work

    def __post_init__(self) -> None:
        self.policy.check(self.source.tensors)
        deepest = Config("uniform-d4", "uniform", DEPTHS[-1])
        for shard in self.source.shards:
            for config in self.configs:
                planned = plan(shard.tensors, deepest, self.policy, self.work.group_size, {})
                with in_file(shard.path):
                    encode_header([item.entry for item in planned], self.metadata(shard, config))
        matrices = self.matrices
        for config in self.configs:
            check_budget(matrices, config, self.policy, self.work.group_size)
        if self.source.folder:
            check_companions(self.source.folder)

    @property
    def matrices(self) -> list[SourceTensor]:
        """The tensors that are quantised."""
        return [t for t in self.source.tensors if self.policy.reason_to_keep(t) is None]

    @property
    def keys(self) -> dict[str, str]:
        """What each tensor is called in the spool: a number, for names may hold anything."""
        return {tensor.name: f"{number:06}" for number, tensor in enumerate(self.source.tensors)}

    @property
    def measure(self) -> bool:
        """Whether the error that comes out of encoding matters."""
        return any(config.kind == "sens" for config in self.configs)

    @property
    def adaptive(self) -> bool:
        """Whether some config looks at the weights before it chooses depths."""
        return any(config.adaptive for config in self.configs)

    @property
    def depths(self) -> tuple[int, ...]:
        """The depths for which codebooks are fitted."""
        if self.adaptive:
            return DEPTHS
        uniform = {int(config.value) for config in self.configs}
        return tuple(sorted(uniform | {depth for _, depth in self.policy.depths}))

    def plans(self, surveys: Mapping[str, Surveyed]) -> dict[str, list[Planned]]:
        """What becomes of each tensor, for each config; without *surveys* where none is adaptive."""
        size = self.work.group_size
        return {c.name: plan(self.source.tensors, c, self.policy, size, surveys) for c in self.configs}

    def metadata(self, shard: Shard, config: Config) -> dict[str, str]:
        """The metadata of a file: the source's, and what made it."""
        return {**shard.metadata, "tritcodec.config": config.name, "tritcodec.method": self.work.title}

    def fingerprint(self) -> dict[str, Any]:
        """What has to be the same where a run goes on: source, options, versions of codec and format."""
        shards = self.source.shards
        return {
            "tritcodec": __version__,
            "format": [MAJOR, MINOR],
            "configs": [config.name for config in self.configs],
            "keep": list(self.policy.keep),
            "quantize": list(self.policy.quantize),
            "depth": [list(pair) for pair in self.policy.depths],
            **self.work.options(),
            "source": {shard.path.name: {"bytes": shard.size, "header": shard.header} for shard in shards},
        }


def survey_all(
    job: Job, executor: Executor, width: int, spool: Spool | None = None, progress: Progress = silent
) -> dict[str, Surveyed]:
    """What is known of every tensor before anything is encoded; from *spool* what is there.

    A file that may have changed is read again. Raises TritError
    where something in it is not what it was, and for NaN and infinities.
    """
    matrices = {tensor.name for tensor in job.matrices}
    earlier = {t.name: kept for t in job.source.tensors if spool and (kept := spool.get(job.keys[t.name]))}
    found = {name: Surveyed.from_json(kept) for name, kept in earlier.items()}
    total = sum(weights(tensor) for tensor in job.source.tensors)
    tasks: list[Task[SourceTensor, Surveyed]] = []
    for shard in job.source.shards:
        for tensor in shard.tensors:
            if tensor.name in found and found[tensor.name].stamp == shard.stamp:
                progress("survey", tensor.name, weights(tensor), total, True)
            elif tensor.name in matrices:
                tasks.append((tensor, job.work.survey, (tensor, job.depths, job.adaptive)))
            else:
                tasks.append((tensor, survey_raw, (tensor,)))
    for tensor, result in run_all(executor, width, announced(tasks, lambda task: will_read(task[0]))):
        with naming(tensor):
            if tensor.name in found and found[tensor.name].digests != result.digests:
                raise TritError("the tensor has changed since the unfinished run began")
        if spool:
            spool.put(job.keys[tensor.name], result.to_json())
        found[tensor.name] = result
        progress("survey", tensor.name, weights(tensor), total, False)
    return found


def quantize_model(
    job: Job, target: PathLike, executor: Executor, width: int = 1, progress: Progress = silent
) -> dict[str, list[Planned]]:
    """Write *target*/CONFIG for each config: shards and the model's other files; gives what was made.

    The folders appear when all are complete. Where a run is interrupted, what is done so
    far stays in a folder beside them, and the same call goes on from there, to the same
    bytes as if nothing had happened. Raises TritError for weights that cannot be quantised,
    where *target* holds an unfinished run of something else, or where another run is
    at work; OSError for failing I/O.
    """
    target = Path(target)
    outputs = [target / config.name for config in job.configs]
    with Spool(target, job.fingerprint(), outputs) as spool:
        check_places(job, spool, outputs)
        surveys = survey_all(job, executor, width, spool, progress)
        plans = job.plans(surveys)
        spool.begin()
        encoded = Encoded(spool, surveys, job.keys, job.work, job.measure)
        shards = _Shards(job, plans, encoded, spool)
        shards.run(executor, width, progress)
        shards.look(outputs)
        finish(job, spool, outputs)
    return {name: list(items.values()) for name, items in shards.plans.items()}


class _Shards:
    """Encodes matrices part by part, and writes each shard, in a thread, as soon as its parts are there."""

    def __init__(
        self, job: Job, plans: Mapping[str, Sequence[Planned]], encoded: Encoded, spool: Spool
    ) -> None:
        self.job, self.encoded, self.spool = job, encoded, spool
        self.configs = [config for config in job.configs if not is_complete(spool, config)]
        self.plans = {name: {item.tensor.name: item for item in items} for name, items in plans.items()}

    def run(self, executor: Executor, width: int, progress: Progress) -> None:
        """All of it. Raises what fails, in a worker or in writing."""
        writer = ThreadPoolExecutor(1)
        try:
            written: list[Future[None]] = []
            for number in self._ready(executor, width, progress):
                written.append(writer.submit(self._write, number, executor))
                for future in written:
                    if future.done():
                        future.result()
            for future in written:
                future.result()
        finally:
            writer.shutdown(cancel_futures=True)

    def _ready(self, executor: Executor, width: int, progress: Progress) -> Iterator[int]:
        """The numbers of the shards, each when all its parts are encoded."""
        total = sum(weights(tensor) for tensor in self.job.source.tensors if self._depths(tensor))
        missing: dict[int, int] = {}
        ready: list[int] = []

        def tasks() -> Iterator[Task[tuple[int, Found], list[bytes]]]:
            for number in range(len(self.job.source.shards)):
                some = list(self._tasks(number, progress, total))
                missing[number] = len(some)
                if not some:
                    ready.append(number)
                for found, function, arguments in some:
                    yield (number, found), function, arguments

        def read_ahead(task: Task[tuple[int, Found], list[bytes]]) -> None:
            tensor, start, stop, _ = task[0][1]
            will_read(tensor, start, stop)

        for (number, found), results in run_all(executor, width, announced(tasks(), read_ahead)):
            self.encoded.keep(found, results)
            progress("encode", found[0].name, part_weights(found), total, False)
            missing[number] -= 1
            if not missing[number]:
                ready.append(number)
            while ready:
                yield ready.pop(0)
        yield from ready

    def _tasks(self, number: int, progress: Progress, total: int) -> Iterator[Task[Found, list[bytes]]]:
        """What is to be encoded for a shard; progress is told what is not."""
        shard = self.job.source.shards[number]
        done = all(self._path(number, config).exists() for config in self.configs)
        for tensor in shard.tensors:
            depths = self._depths(tensor)
            if depths:
                tasks = [] if done else list(self.encoded.tasks(tensor, depths))
                left = sum(part_weights(found) for found, _, _ in tasks)
                progress("encode", tensor.name, weights(tensor) - left, total, True)
                yield from tasks

    def _depths(self, tensor: SourceTensor) -> list[int]:
        """Those at which some config has *tensor*; none where it is kept raw."""
        return sorted({plan[tensor.name].depth for plan in self.plans.values()} - {0})

    def _path(self, number: int, config: Config) -> Path:
        return self.spool.folder / config.name / shard_name(number, len(self.job.source.shards))

    def _write(self, number: int, executor: Executor) -> None:
        """Write a shard for every config, where it is not there already."""
        shard = self.job.source.shards[number]
        for config in self.configs:
            path, plan = self._path(number, config), self.plans[config.name]
            if path.exists():
                continue
            for tensor in shard.tensors:
                plan[tensor.name] = self._settled(plan[tensor.name], config, executor)
            path.parent.mkdir(exist_ok=True)
            unproved = path.with_name(f".{path.name}.tmp")  # a kill leaves it to the spool to remove
            planned = [plan[tensor.name] for tensor in shard.tensors]
            self.encoded.write(unproved, planned, self.job.metadata(shard, config))
            self.job.work.prove(unproved, shard.tensors)
            os.replace(unproved, path)
        self.encoded.drop(shard.tensors)

    def look(self, outputs: Sequence[Path]) -> None:
        """Take the depths that errors decided from the files: an earlier run may have written them."""
        for config, output in zip(self.job.configs, outputs, strict=True):
            plan = self.plans[config.name]
            for number in range(len(self.job.source.shards)) if config.kind == "sens" else ():
                path = self._path(number, config)
                with open_file(path if path.exists() else output / path.name) as file:
                    for entry in file.header.entries:
                        if isinstance(entry, TritEntry):
                            plan[entry.name] = plan[entry.name].at_depth(entry.form.depth)

    def _settled(self, item: Planned, config: Config, executor: Executor) -> Planned:
        """*item*, deeper where the error that came out is above the bound: the plan has only estimates."""
        if config.kind != "sens" or not item.depth or self.job.policy.fixed_depth(item.tensor) is not None:
            return item
        while self.encoded.error(item.tensor, item.depth) > config.value and item.depth < DEPTHS[-1]:
            item = item.at_depth(item.depth + 1)
            for found, results in run_all(executor, 1, self.encoded.tasks(item.tensor, [item.depth])):
                self.encoded.keep(found, results)
        return item


def shard_name(number: int, shards: int) -> str:
    """The file of a shard, as Hugging Face names them; the only one has no number."""
    return TRIT_NAME if shards == 1 else f"model-{number + 1:05}-of-{shards:05}.trit"


def is_complete(spool: Spool, config: Config) -> bool:
    """Whether the folder of *config* lacks nothing, but perhaps its name."""
    return spool.get(f"done.{config.name}") is not None


def is_named(spool: Spool, config: Config) -> bool:
    """Whether the folder of *config* has got its name, in an earlier run."""
    return is_complete(spool, config) and not (spool.folder / config.name).exists()


def check_places(job: Job, spool: Spool, outputs: Sequence[Path]) -> None:
    """Raise TritError where something has the place of an output that is not this run's."""
    for config, output in zip(job.configs, outputs, strict=True):
        if os.path.lexists(output) and not is_named(spool, config):
            message = "came into being meanwhile; move it away and run the command again"
            raise TritError(message, where=str(output))


def finish(job: Job, spool: Spool, outputs: Sequence[Path]) -> None:
    """Give the folders of all configs what they lack, and their names."""
    unnamed = {
        c.name: output for c, output in zip(job.configs, outputs, strict=True) if not is_named(spool, c)
    }
    kept = [shard_name(number, len(job.source.shards)) for number in range(len(job.source.shards))]
    for name in unnamed:  # complete or not: these get the other files of the source as they are now
        folder = spool.folder / name
        folder.mkdir(exist_ok=True)
        clear(folder, kept)
        copy_companions(job.source.folder, folder)
        write_index(folder, len(job.source.shards))
        flush(folder)
        spool.put(f"done.{name}", b"")
    check_places(job, spool, outputs)
    for name, output in unnamed.items():
        os.rename(spool.folder / name, output)
    sync_names(spool.target)
    spool.discard()


def write_index(folder: Path, count: int) -> None:
    """Write the index of a folder of *count* shards; one shard needs none."""
    if count == 1:
        return
    shards = {}
    for name in (shard_name(number, count) for number in range(count)):
        with open_file(folder / name) as file:
            shards[name] = index.Shard(file.identity, file.preamble.file_size, file.keys())
    (folder / INDEX_NAME).write_bytes(index.encode_index(shards))


def weights(tensor: SourceTensor) -> int:
    """The elements of a tensor."""
    return math.prod(tensor.shape)


def part_weights(found: Found) -> int:
    """The weights that a task encodes."""
    tensor, start, stop, _ = found
    return (stop - start) * tensor.shape[-1]
