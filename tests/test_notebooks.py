"""The notebooks: valid, current, without outputs; and, slowly, run from the first cell to the last."""

import importlib.util
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "notebooks"
PATHS = sorted(FOLDER.glob("*.ipynb"))

SHOWN = {  # pictures that come of it, and what must be true at the end
    "fgsm-in-ten-minutes": (
        5,
        """
assert says(images[which]).split(",")[0] == data.classes[int(labels[which])]
assert says(adversarial[0]).split(",")[0] != data.classes[int(labels[which])]
assert says(random[3]).split(",")[0] == data.classes[int(labels[which])]
assert float((adversarial - images[which]).abs().max()) <= eps + 1e-6
assert fgsm.accuracy(0).value > 0.85 and fgsm.accuracy(0.1).value < 0.4
assert all(pgd.accuracy(e).value <= fgsm.accuracy(e).value for e in grid)
assert pgd.accuracy(0.1).value < 0.02
assert hits["fgsm"] < hits["pgd:steps=20,step_size=0.1"]
assert tough.accuracy(0.1).value > 0.6
""",
    ),
    "a-blurred-model-both-ways": (
        2,
        """
assert blind.robust_accuracy > bare.robust_accuracy + 0.1
assert aware.robust_accuracy < 0.5 * blind.robust_accuracy
assert left[0] < left[1]
assert max(curves["attacker knows, 20 steps"]) < 10
assert ways.adaptive.value < 0.05 < ways.non_adaptive.value
assert verdict.trust == "valid"
""",
    ),
    "reading-a-run-folder": (
        1,
        """
assert answer == verdict
assert answer.robust_accuracy.attacked.value == robust.mean()
assert sum(held for *_, held in by_class) == robust.sum()
assert change[fooled].max() <= 0.1 + 1e-6
assert wrong.all() and len(wrong) > 5
assert checked.holds and checked.examples == 150
""",
    ),
}


def test_there_are_three_and_each_is_made_of_its_file():
    assert {path.stem for path in PATHS} == set(SHOWN)
    found = importlib.util.spec_from_file_location("notebooks", ROOT / "tools" / "notebooks.py")
    tool = importlib.util.module_from_spec(found)
    found.loader.exec_module(tool)
    for path in PATHS:
        made = tool.notebook(path.with_suffix(".py").read_text(encoding="utf-8"))
        assert path.read_text(encoding="utf-8") == made, f"{path.name} is stale: run python tools/notebooks.py"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_is_valid_and_holds_no_outputs(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 5
    assert notebook.cells[0].cell_type == "markdown"
    for cell in code:
        assert not cell.outputs
        assert cell.execution_count is None
        compile(cell.source, path.name, "exec")
    text = path.read_text(encoding="utf-8")
    assert "/home/" not in text
    assert "/tmp/" not in text
    assert path.name in (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_runs_and_shows_what_it_says(path, tmp_path):
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(path, 4)
    pictures, claims = SHOWN[path.stem]
    notebook.cells.append(nbformat.v4.new_code_cell(claims))
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == pictures
    assert not [output for output in outputs if output.get("name") == "stderr"]
