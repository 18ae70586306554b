from __future__ import annotations

import hashlib
import json
import sys

import pytest

from portal.lib import processes

_SMAPS = """\
55d0-55d8 r--p 00000000 08:01 11 /usr/lib/libx.so
Size: 8 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
55d8-55e0 r-xp 00002000 08:01 11 /usr/lib/with a blank.so
Anonymous:             0 kB
55e0-55e8 r--p 00004000 08:01 11 /usr/lib/relocated.so
Anonymous:             4 kB
55e8-55f0 rw-p 00006000 08:01 11 /usr/lib/written.so
Anonymous:             0 kB
55f0-55f8 rw-p 00000000 00:00 0 [heap]
Anonymous:             0 kB
55f8-55ff r--p 00000000 00:00 0
Anonymous:             0 kB
6000-6008 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
"""


def test_only_pages_of_files_that_are_as_in_the_file_are_given_back() -> None:
    assert list(processes._unchanged(_SMAPS)) == [(0x55D0, 0x55D8), (0x55D8, 0x55E0)]


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc elsewhere")
def test_a_process_goes_on_after_it_has_given_pages_back() -> None:
    before = processes.resident_bytes()
    processes.give_back()
    assert processes.resident_bytes() < before
    assert json.loads(json.dumps([hashlib.sha256(b"x").hexdigest()]))[0].startswith("2d711642")
