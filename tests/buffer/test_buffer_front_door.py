"""The front door of the room: every public name exists, and importing the room is cheap."""

import subprocess
import sys

import buffer


def test_every_public_name_is_exported_by_the_module_that_defines_it():
    for name in buffer.__all__:
        assert getattr(buffer, name) is not None, name


def test_importing_the_room_imports_no_heavy_package():
    program = "import sys, buffer; print(sorted({'numpy', 'pyarrow', 'ray', 'torch', 'vllm'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
