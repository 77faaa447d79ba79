"""CPython's tests of named shared memory and of its manager pass with shoal's."""

from multiprocessing import shared_memory as original
from typing import Any
from unittest import mock

from shoal.multiprocessing import managers, shared_memory
from tests.cpython.harness import install


class Named:
    """The tests have the names of segments made by a function that they put into the original's module."""

    def setUp(self: Any) -> None:
        patch = mock.patch.object(shared_memory, "_make_filename", lambda: original._make_filename())
        patch.start()
        self.addCleanup(patch.stop)


install(
    globals(),
    ["_TestSharedMemory"],
    changed={"_TestSharedMemory": Named},
    patched={
        "shared_memory": shared_memory,
        "multiprocessing.shared_memory": shared_memory,
        "multiprocessing.managers.SharedMemoryManager": managers.SharedMemoryManager,
    },
    deviations={
        "_TestSharedMemory.test_shared_memory_SharedMemoryServer_ignores_sigint": "there is no server",
    },
    slow=["forkserver", "spawn"],
)
