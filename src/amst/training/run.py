"""One run from its settings to its folder: train, select, evaluate, write ``run.json`` last."""

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path

import torch

from amst.config.run import RunSettings
from amst.datasets.splitfile import read_split
from amst.errors import AmstError, HostError, no_memory
from amst.records import RECORD, RunRecord, read_record
from amst.training.assembly import assemble_training, check_last_batch
from amst.training.attempts import Attempt, drop_unfinished
from amst.training.environment import model_of
from amst.training.execution import Execution
from amst.training.finish import FILES, finish
from amst.training.kept import KEPT, LOG, forget, keep, take_back
from amst.training.lock import RunLock
from amst.training.loop import Surroundings, TrainingLoop
from amst.training.progress import progress
from amst.training.recorder import Recorder, has_events
from amst.training.signals import SAVED, StopRequest, listening
from amst.training.state import run_digest

_NO_ENGINE = "unable to find an engine to execute this computation"
"""PyTorch of a convolution whose workspace found no memory with any of cuDNN's engines."""


def train(
    settings: RunSettings,
    manifest: Path,
    split: Path,
    out: Path,
    checkpoints: Path,
    execution: Execution,
) -> RunRecord:
    """Train one run to its end, from wherever an earlier attempt left off.

    Args:
        settings: all that the run's numbers depend on.
        manifest: the dataset's manifest.
        split: the split file.
        out: the run's folder; ``run.json`` appears in it last, and the run is done when all of
            its files are there.
        checkpoints: the run's folder of working checkpoints, with its lock and ``failed.json``;
            below it one folder per digest of settings, code, packages and data.
        execution: where and how.

    Returns:
        The record, also of a run that was done before.

    Raises:
        AmstError: exit code 75: the state is saved, or another process writes this run; the same
            command continues. Exit code 1: an error, or an earlier attempt has failed.
    """
    with listening() as stop:
        stop.set_deadline(execution.deadline)
        made_by = (execution.code_digest, execution.package_digest)
        digest = run_digest(settings.hash, *made_by, manifest, split)
        attempt = Attempt(checkpoints, settings.run_id, digest, execution.log)
        done = _finished(out, digest)
        if done and has_events(out / "tensorboard") and not attempt.has_traces():
            print(f"{settings.run_id}: nothing to do, it is done", file=sys.stderr, flush=True)
            return done
        _check_split(settings, split)
        attempt.refuse_if_failed()
        stop.check()
        with RunLock(
            checkpoints / "lock", execution.lock_wait, execution.stale_after, stop
        ) as lock:
            # Another process may have ended the run while this one waited for the lock.
            done = _finished(out, digest)
            kept = checkpoints / KEPT
            if not done and _finished(kept, digest):
                attempt.carry_log_over(kept / LOG)
                print(
                    f"{settings.run_id} had ended before it was started again: taken back from "
                    f"{kept} (to train it anew, delete that folder as well)",
                    file=sys.stderr,
                )
                take_back(checkpoints, out)
                done = _finished(out, digest)
            if done:
                _complete_events(out, done)
                _end(out, checkpoints, execution, attempt)
                return done
            attempt.refuse_if_failed()
            attempt.begin()
            drop_unfinished(out, FILES)
            try:
                with _full_memory_told():
                    record = _attempt(
                        settings, manifest, split, out, execution, attempt, lock, stop
                    )
            except Exception as error:
                if not (isinstance(error, AmstError) and error.exit_code == SAVED):
                    lock.check()  # an error may come from another writer that took over
                    attempt.fail(error)
                raise
            _end(out, checkpoints, execution, attempt)
            return record


@contextmanager
def _full_memory_told() -> Iterator[None]:
    """Say in one line that a device or this machine has no memory left, and what to do.

    Raises:
        HostError: it has none; another one may have.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if absent := no_memory(error):
            raise absent from error
        # Where it was met while a pass was recorded, what ends the recording hides it.
        cause: BaseException | None = error
        while cause and not _is_full(cause):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        told = str(cause).splitlines()[0].split(" Of the allocated memory")[0].rstrip(". ")
        if _NO_ENGINE in told:
            told += ": the GPU has no memory left for it, or is too old for precision bf16"
        raise HostError(
            told,
            "Where another process holds memory of it, end that one (nvidia-smi lists them), or "
            "lower AMST_RUNS_PER_GPU; else set execution.residency: host, execution.capture: false "
            "or a smaller recipe.batch_size, or ask for a larger GPU; then `amst retry`",
        ) from error


def _is_full(error: BaseException) -> bool:
    """Whether PyTorch, CUDA or one of its libraries found no memory on the device."""
    words = ("CUDA error: out of memory", "STATUS_ALLOC_FAILED", _NO_ENGINE)
    return isinstance(error, torch.OutOfMemoryError) or any(each in str(error) for each in words)


def _check_split(settings: RunSettings, path: Path) -> None:
    """Refuse a split of another name, before it replaces what was made with the right one."""
    # Where there is none, there is no manifest either, which says more.
    name = read_split(path).name if path.is_file() else settings.split
    if name != settings.split:
        raise AmstError(
            f"{path} is the split {name}, and {settings.run_id} is a run on {settings.split}",
            "A split of one's own has a name of its own: docs/add-a-dataset.md",
        )


def _end(out: Path, checkpoints: Path, execution: Execution, attempt: Attempt) -> None:
    """Remove what only an unfinished run needs, once the finished one has its second names."""
    if execution.keep:
        keep(out, checkpoints, FILES, execution.log)
    else:
        forget(checkpoints)
    attempt.end()


def _finished(out: Path, digest: str) -> RunRecord | None:
    """The record of a run that is done with this digest; its folder has all but the events.

    Raises:
        HostError: the disk does not give its record.
    """
    if not all((out / name).is_file() for name in FILES):
        return None
    try:
        record = read_record(out / RECORD)
    except HostError:
        raise
    except AmstError:
        return None
    return record if record.digest == digest else None


def _complete_events(out: Path, record: RunRecord) -> None:
    """Write the events of a finished run anew where they are gone: its tables hold the same."""
    if not has_events(out / "tensorboard"):
        ended = datetime.fromisoformat(record.finished).timestamp()
        Recorder.from_tables(out, ended).events(out / "tensorboard").close()


def _attempt(
    settings: RunSettings,
    manifest: Path,
    split: Path,
    out: Path,
    execution: Execution,
    attempt: Attempt,
    lock: RunLock,
    stop: StopRequest,
) -> RunRecord:
    record = out / RECORD
    if record.is_file():
        print(
            f"{record} is of another version of this run, or not all of its files are there; "
            "replacing it",
            file=sys.stderr,
        )
        record.unlink()
    assembly = assemble_training(settings, manifest, split, execution)
    stop.check()
    state = attempt.checkpoints.load()
    if not state and (others := attempt.states_of_others()):
        print(
            f"{settings.run_id}: trained from the first epoch, since what is saved in "
            f"{', '.join(map(str, others))} is of other settings, code, packages or data",
            file=sys.stderr,
            flush=True,
        )
    train_part, val = assembly.part("train"), assembly.part("val")
    check_last_batch(assembly.method, len(train_part))
    stop.check()
    loop = TrainingLoop(
        assembly.method,
        assembly.loader,
        train_part,
        val,
        assembly.autocast(),
        state,
        execution.runs_on_gpu,
    )
    main = assembly.method.main_prediction
    with (
        closing(loop.recorder.events(out / "tensorboard")) as events,
        progress(settings.run_id, settings.recipe.epochs, main) as shown,
    ):
        if state:
            shown.say(f"continuing in epoch {loop.epoch + 1} after {loop.batch} batches")
            names = state["devices"][-1], loop.devices[-1]
            before, here = (model_of(name) for name in names)
            if before != here:
                shown.say(f"{before} trained it until now; {here} gives other last digits")
        for row in loop.recorder.history:
            shown.note(row)
        loop.run(Surroundings(attempt.checkpoints, lock, stop, shown, events))
    return finish(assembly, loop, out, execution, attempt, lock, stop)
