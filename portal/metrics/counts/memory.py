"""The memory in which all workers of a host count, so that nothing is lost with a worker that ends or is killed.

Each worker has a slot to itself, and adds to it without any lock; what is shown is the sum of all slots. A slot belongs
to the process that has a lock on one byte of the file, which the kernel gives back when that process ends. Its counts
stay, and the next worker that takes it goes on from there.

The file has no name: it is gone with the last process that has it. Before all slots is the table of labels: which
models and channels have rows of their own.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

SLOTS: Final = 160  # twice as many workers as there may be, while they replace each other
CELL: Final = 8  # bytes of a number
MODELS: Final = 26  # rows; the first is that of all other models
CHANNELS: Final = 751  # the same of channels
MODEL_CELLS: Final = 51  # numbers of a model, in the order of `portal.metrics.counts.rows`
CHANNEL_CELLS: Final = 30
IDS: Final = 2_048  # of records that are not counted yet
ID_BYTES: Final = 36

# A slot: numbers of its own, ids of records that are not counted yet, then the rows, twice: one bank is shown, the
# other one is changed, and then they change places.
OWN_CELLS: Final = 128
STATE: Final = 4  # which of them says which bank is shown (0 or 1), plus twice the number of ids
ROW_CELLS: Final = MODELS * MODEL_CELLS + CHANNELS * CHANNEL_CELLS
CHANNELS_AT: Final = MODELS * MODEL_CELLS  # in a bank
_IDS_AT: Final = OWN_CELLS * CELL
_BANKS_AT: Final = OWN_CELLS + IDS * ID_BYTES // CELL
_SLOT_BYTES: Final = -(-(_BANKS_AT + 2 * ROW_CELLS) * CELL // mmap.PAGESIZE) * mmap.PAGESIZE

# The table of labels: when the counts began, how many models and channels there are, then these.
_BEGAN, _MODEL_COUNT, _CHANNEL_COUNT = 0, 1, 2
_CHANNEL_IDS: Final = 8
_NAME_BYTES: Final = 512
_NAMES_AT: Final = (_CHANNEL_IDS + CHANNELS) * CELL
_TABLE_BYTES: Final = -(-(_NAMES_AT + MODELS * _NAME_BYTES) // mmap.PAGESIZE) * mmap.PAGESIZE
_TABLE_LOCK: Final = SLOTS  # the byte whose lock allows to add labels
_TRIES: Final = 20  # for that lock
_PAUSE: Final = 0.0005  # seconds between them


def new_file(began: int) -> int:
    """A file for `Memory`, as a descriptor. `began`: milliseconds since 1970. Raises OSError."""
    size = _TABLE_BYTES + SLOTS * _SLOT_BYTES
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("airelays-metrics")
    else:  # macOS
        with tempfile.TemporaryFile() as made:
            file = os.dup(made.fileno())
    os.ftruncate(file, size)
    os.pwrite(file, began.to_bytes(CELL, "little"), 0)
    return file


class Slot:
    """The numbers of one worker."""

    def __init__(self, data: mmap.mmap, number: int) -> None:
        start = _TABLE_BYTES + number * _SLOT_BYTES
        whole = memoryview(data)[start : start + _SLOT_BYTES]
        numbers = whole.cast("q")
        self.number = number
        self.numbers = numbers[:OWN_CELLS]
        self.banks = tuple(
            numbers[_BANKS_AT + bank * ROW_CELLS : _BANKS_AT + (bank + 1) * ROW_CELLS] for bank in range(2)
        )
        self._ids = whole[_IDS_AT : _IDS_AT + IDS * ID_BYTES]

    @property
    def is_clean(self) -> bool:
        """Whether all that was committed has been counted."""
        return self.numbers[STATE] < 2

    @property
    def shown(self) -> int:
        """The bank that is shown."""
        return self.numbers[STATE] & 1

    def keep_ids(self, place: int, ids: Sequence[str]) -> None:
        """Write down, after so many others, what is about to be committed."""
        at, count, numbers = place * ID_BYTES, len(ids), self.numbers
        text = "".join(ids).encode()
        if len(text) != count * ID_BYTES or place + count > IDS:  # not so with our own
            text = "".join(map(_padded, ids)).encode("ascii", "replace")[: (IDS - place) * ID_BYTES]
        self._ids[at : at + len(text)] = text
        numbers[STATE] = (place + count) * 2 + (numbers[STATE] & 1)

    def kept_ids(self) -> list[str]:
        """What may have been committed and is not counted."""
        text = bytes(self._ids[: (self.numbers[STATE] >> 1) * ID_BYTES]).decode("ascii", "replace")
        return list(dict.fromkeys(text[at : at + ID_BYTES].rstrip() for at in range(0, len(text), ID_BYTES)))

    def show(self, bank: int) -> None:
        """Show a bank, in which all ids are counted. One store of one number: it has happened, or it has not."""
        self.numbers[STATE] = bank

    def mend(self) -> None:
        """Make the bank that is not shown the same, after a worker was killed while it changed it."""
        self.banks[1 - self.shown][:] = self.banks[self.shown]


_padded: Final = "{:<36.36}".format  # to ID_BYTES


class Memory:
    """The slots of a file, as this process sees them."""

    def __init__(self, file: int) -> None:
        """Takes the descriptor over, which is never closed: with it, the locks of this process would be given back."""
        self._file = file
        self._data = mmap.mmap(file, _TABLE_BYTES + SLOTS * _SLOT_BYTES)
        self._table = memoryview(self._data)[:_TABLE_BYTES].cast("q")
        self.slots = [Slot(self._data, number) for number in range(SLOTS)]
        self._lock = threading.Lock()  # of labels that are added: locks of files are those of a whole process
        self._models: dict[str, int] = {}
        self._channels: dict[int, int] = {}

    @property
    def began(self) -> float:
        """Seconds since 1970."""
        return self._table[_BEGAN] / 1000

    def take(self, slot: Slot) -> bool:
        """Take a slot that belongs to no process. One that this process has is no other's."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot.number)
        except OSError:
            return False
        return True

    def give_back(self, slot: Slot) -> None:
        with suppress(OSError):
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, slot.number)

    # -- labels ------------------------------------------------------------------------------------------------------

    def model_row(self, name: str) -> int:
        """The row of a model, which gets one while there are any; 0: that of all others."""
        found = self._models.get(name) if name else 0
        if found is not None:
            return found
        self._read_table()
        if name not in self._models and len(self._models) < MODELS - 1:
            with self._adding() as may:
                if may:
                    self._read_table()
                    if name not in self._models and len(self._models) < MODELS - 1:
                        self._add_model(name)
        return self._models.get(name, 0)

    def channel_row(self, channel: int) -> int:
        """The same of a channel."""
        found = self._channels.get(channel)
        if found is not None:
            return found
        self._read_table()
        if channel not in self._channels and len(self._channels) < CHANNELS - 1:
            with self._adding() as may:
                if may:
                    self._read_table()
                    if channel not in self._channels and len(self._channels) < CHANNELS - 1:
                        self._table[_CHANNEL_IDS + len(self._channels)] = channel
                        self._table[_CHANNEL_COUNT] = len(self._channels) + 1
                        self._read_table()
        return self._channels.get(channel, 0)

    def labels(self) -> tuple[list[str], list[int]]:
        """The models and channels that have rows, from the second row on."""
        return self._names(), self._table[_CHANNEL_IDS : _CHANNEL_IDS + self._table[_CHANNEL_COUNT]].tolist()

    def _names(self) -> list[str]:
        found = []
        for row in range(self._table[_MODEL_COUNT]):
            at = _NAMES_AT + row * _NAME_BYTES
            found.append(self._data[at : at + _NAME_BYTES].rstrip(b"\0").decode("utf-8", "replace"))
        return found

    def _add_model(self, name: str) -> None:
        at = _NAMES_AT + len(self._models) * _NAME_BYTES
        text = name.encode("utf-8", "replace")[:_NAME_BYTES]
        self._data[at : at + len(text)] = text
        self._table[_MODEL_COUNT] = len(self._models) + 1
        self._read_table()

    def _read_table(self) -> None:
        if self._table[_MODEL_COUNT] != len(self._models):
            self._models = {name: row for row, name in enumerate(self._names(), 1)}
        if self._table[_CHANNEL_COUNT] != len(self._channels):
            self._channels = {channel: row for row, channel in enumerate(self.labels()[1], 1)}

    @contextmanager
    def _adding(self) -> Iterator[bool]:
        """Whether labels may be added now. Not waited for long: a process that was stopped might have the lock."""
        with self._lock:
            for _ in range(_TRIES):
                try:
                    fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _TABLE_LOCK)
                except OSError:
                    time.sleep(_PAUSE)
                    continue
                try:
                    yield True
                finally:
                    fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _TABLE_LOCK)
                return
            yield False
