"""The files of a run's states: written in the background, checked when they are read, and the last ones kept."""

import errno
import logging
import os
import shutil
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import tensorflow as tf

from vswin.atomic import literal_folder, sync_file, sync_folder
from vswin.errors import InputError
from vswin.runtime import logger

# TensorFlow copies the variables, which takes a moment, and writes the copies while training goes on.
_IN_BACKGROUND = tf.train.CheckpointOptions(enable_async=True)
# Before it raises what went wrong there, it prints it.
logging.getLogger("absl").addFilter(lambda record: "error from the async thread" not in record.getMessage())


class StateFiles:
    """Keeps states as `<folder>/ckpt-<global step>.*`; one that is damaged moves to `<folder>/damaged/`.

    A state counts once it is on the disk, and only then older ones go; so neither a failed write nor a damaged file
    costs more than the work in between.

    Args:
        folder: holds nothing else.
        state: all that a state consists of.
        num_kept: states to keep, >= 1.
        is_chief: whether this worker's files are kept. All workers write, since metrics are summed over them then.
    """

    def __init__(self, folder: Path, state: tf.train.Checkpoint, num_kept: int = 2, is_chief: bool = True) -> None:
        self.folder = folder
        self.num_kept = num_kept
        self._state = state
        # Writing in the background makes the counter, so reading has to know it.
        assert state.save_counter is not None
        self._is_chief = is_chief
        self._unfinished: int | None = None
        self._written: list[int] = []
        # Waits for a slow disk in training's stead.
        self._waiter = ThreadPoolExecutor(1, "state_files")
        self._waiting: Future[None] | None = None
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    @property
    def unfinished(self) -> int | None:
        """Gives the number of the state that is being written; None if there is none."""
        return self._unfinished

    def write(self, number: int) -> None:
        """Takes a state and begins to write it; one that is being written is finished first.

        Args:
            number: global step.

        Raises:
            OSError, tf.errors.OpError: if the one before could not be written.
        """
        self.finish()
        if self._is_chief:
            # But not the run's folder: it was moved where it is gone.
            self.folder.parent.mkdir(exist_ok=True)
            self.folder.mkdir(exist_ok=True)
            folder = self.folder
        else:
            self._scratch = tempfile.TemporaryDirectory()
            folder = Path(self._scratch.name)
        self._unfinished = number
        try:
            self._state.write(str(folder / f"ckpt-{number}"), _IN_BACKGROUND)
        except BaseException:
            self._give_up()
            raise
        self._waiting = self._waiter.submit(self._wait_for_disk, number)

    def is_written(self) -> bool:
        """Tells whether `finish` would not have to wait."""
        return self._waiting is None or self._waiting.done()

    def finish(self) -> None:
        """Waits until the state that is being written is on the disk, then removes those that are not kept.

        Raises:
            OSError, tf.errors.OpError: if it cannot be written; what is left of it is removed.
        """
        if self._unfinished is None:
            return
        try:
            if self._waiting is not None:
                self._waiting.result()
            if self._is_chief:
                self._raise_if_failed(self._unfinished)
        except BaseException:
            self._give_up()
            raise
        number, self._unfinished, self._waiting = self._unfinished, None, None
        if self._scratch is not None:
            self._scratch.cleanup()
            return
        # Those of this session are the newest, whatever their numbers.
        self._written = [*(other for other in self._written if other != number), number]
        earlier = [other for other in self.numbers() if other not in self._written]
        for old in [*earlier, *self._written][: -self.num_kept]:
            self._remove(old)

    def read_newest(self, way_out: str) -> int | None:
        """Reads the newest state that is whole, into the variables; damaged ones are set aside by the chief.

        Args:
            way_out: what to do if none can be read, for the message.

        Returns:
            Its number; None if there are no states.

        Raises:
            InputError: if there are states and none can be read, or one is of another network.
        """
        numbers = self.numbers()
        for number in reversed(numbers):
            if self._can_read(number, way_out):
                return number
            if self._is_chief:
                self._set_aside(number)
        if numbers or any(self.folder.glob("damaged/*")):
            raise InputError(f"every state in {self.folder} is damaged; copy them again, or {way_out}")
        return None

    def numbers(self) -> list[int]:
        """Lists the numbers of the states on the disk, the newest last."""
        return sorted(int(path.stem.removeprefix("ckpt-")) for path in self.folder.glob("ckpt-*.index"))

    def remove_unfinished(self) -> None:
        """Removes what a process that was killed while writing has left behind."""
        whole = {f"ckpt-{number}" for number in self.numbers()}
        for path in self.folder.glob("ckpt-*"):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.stem not in whole:
                path.unlink()

    def _wait_for_disk(self, number: int) -> None:
        """Waits until a state is written, and then until the disk has it."""
        self._state.sync()
        # The index is the last file of a state; what went wrong without it is raised by `finish`.
        if self._is_chief and (self.folder / f"ckpt-{number}.index").exists():
            self._sync_files(number)

    def _sync_files(self, number: int) -> None:
        for path in self.folder.glob(f"ckpt-{number}.*"):
            sync_file(path)
        sync_folder(self.folder)

    def _raise_if_failed(self, number: int) -> None:
        """Raises what went wrong in the background, which TensorFlow does at the next write alone."""
        if self._is_written_whole(number):
            return
        if not self.folder.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder))
        self._state.write(str(self.folder / f"ckpt-{number}_failed"), _IN_BACKGROUND)
        self._state.sync()
        raise OSError(errno.EIO, "written, but not readable", str(self.folder / f"ckpt-{number}"))

    def _is_written_whole(self, number: int) -> bool:
        """Reads the index of a state, which is written last: a disk that is full leaves the beginning of one."""
        try:
            with literal_folder(self.folder) as folder:
                tf.train.load_checkpoint(str(folder / f"ckpt-{number}"))
        except (tf.errors.OpError, IndexError):  # as in `_can_read`
            return False
        return True

    def _can_read(self, number: int, way_out: str) -> bool:
        path = self.folder / f"ckpt-{number}"
        try:
            with literal_folder(self.folder) as folder:
                self._state.read(str(folder / path.name)).assert_consumed()
        except (tf.errors.OpError, IndexError) as error:  # IndexError: TensorFlow's words for a file that is too short
            logger.info(f"{path}.* is damaged ({error}); going on from the state before it")
            return False
        except (AssertionError, ValueError) as error:
            raise InputError(
                f"{path}.* does not fit this network: another version of vswin wrote it; go on with that version, or "
                f"{way_out}"
            ) from error
        return True

    def _set_aside(self, number: int) -> None:
        """Moves a damaged state out of the way, where it can still be looked at."""
        aside = self.folder / "damaged"
        aside.mkdir(exist_ok=True)
        # Without its index, which goes first, a state does not count.
        for path in sorted(self.folder.glob(f"ckpt-{number}.*"), key=lambda path: path.suffix != ".index"):
            path.replace(aside / path.name)

    def _give_up(self) -> None:
        """Removes what there is of a state that cannot be written: it would only fill the disk."""
        number, self._unfinished, self._waiting = self._unfinished, None, None
        if self._scratch is not None:
            self._scratch.cleanup()
        elif number is not None:
            self._remove(number)

    def _remove(self, number: int) -> None:
        """Removes a state, first the file without which the others do not count."""
        (self.folder / f"ckpt-{number}.index").unlink(missing_ok=True)
        for path in self.folder.glob(f"ckpt-{number}[._]*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
