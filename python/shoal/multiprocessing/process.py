"""`multiprocessing.process`: the original."""

from __future__ import annotations

import sys

from shoal.multiprocessing.originals import original

sys.modules[__name__] = original("multiprocessing.process")
