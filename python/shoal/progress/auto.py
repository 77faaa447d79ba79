"""The class that `tqdm.auto` chooses, without its warning in a notebook that has no widgets: text will do."""

import warnings

from tqdm.std import TqdmWarning

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm as auto_tqdm

__all__ = ["auto_tqdm"]
