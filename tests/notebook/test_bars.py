"""Bars in a notebook, with a real kernel: widgets in the cell, of the client and of its workers."""

import pytest

from tests.notebook.kernel import Notebook

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_bars_are_widgets_and_workers_move_them_and_add_their_own(notebook: Notebook) -> None:
    printed = notebook.run("""
        import shoal, tqdm.notebook

        def be_patient():
            # On a busy machine the screen may not answer within two seconds, and what is drawn comes behind the result.
            import shoal.progress.line
            shoal.progress.line.PATIENCE = 100.0

        pool = shoal.Pool(2, be_patient)
        def work(i):
            for _ in shoal.tqdm(range(5), desc=f"part {i}", leave=False):
                pass
            outer.write(f"wrote {i}")
            ordinary.update()
            outer.update()

        ordinary = tqdm.notebook.tqdm(total=3, desc="ordinary")
        with shoal.tqdm(total=3, desc="outer") as outer:
            pool.map(work, range(3), chunksize=1)
        ordinary.close()
        print(isinstance(outer, tqdm.notebook.tqdm), outer.n, ordinary.n)
    """)
    assert printed.splitlines()[-1] == "True 3 3"
    assert sorted(printed.splitlines()[:-1]) == ["wrote 0", "wrote 1", "wrote 2"]
    bars = notebook.bars()
    assert notebook.displays == 5
    assert ("outer", 3, 3) in bars and ("ordinary", 3, 3) in bars
    assert sorted(bar for bar in bars if bar[0].startswith("part")) == [(f"part {i}", 5, 5) for i in range(3)]


def test_a_map_shows_its_bar_in_the_cell(notebook: Notebook) -> None:
    notebook.run("import shoal; pool = shoal.Pool(2)")
    printed = notebook.run("print(pool.map(abs, range(-50, 0), progress={'desc': 'map'})[0])")
    assert printed == "50\n"
    assert notebook.bars() == [("map", 50, 50)]


def test_without_widgets_bars_are_text(notebook: Notebook) -> None:
    notebook.run("import sys; sys.modules['ipywidgets'] = None; import shoal; pool = shoal.Pool(2)")
    answer = notebook.answer("pool.map(abs, range(-50, 0), progress={'desc': 'map'})[0]")
    assert answer.printed.rpartition("\r")[2].startswith("map: 100%|██████████| 50/50"), answer.printed
    assert "Warning" not in answer.printed
    assert notebook.bars() == []
