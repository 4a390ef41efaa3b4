"""The public names: all there, loaded lazily, torch only when needed."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import unfooled as uf

EXTRA = ("unfooled.explorer.", "unfooled.models.formats.onnx_")
"""What may need an extra; test_extras says which of them do, and how they tell."""


def test_every_submodule_imports_and_then_every_public_name_is_there():
    names = [m.name for m in pkgutil.walk_packages(uf.__path__, "unfooled.") if not m.name.endswith("__main__")]
    assert len(names) > 40
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            if not name.startswith(EXTRA):
                raise
    for name in uf.__all__:
        assert getattr(uf, name) is not None
        assert name in dir(uf)


@pytest.mark.parametrize("name", ["attack", "sweep", "train", "defend", "perturb"])
def test_the_verbs_are_functions_and_no_modules(name):
    for module in pkgutil.iter_modules(uf.__path__):
        assert module.name != name
    assert callable(getattr(uf, name))


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'atack'"):
        uf.atack  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import unfooled",
        "import unfooled.report, unfooled.store, unfooled.results",
        "from unfooled.cli import run; assert run(['--help']) == 0",
        "from unfooled.cli import run; assert run(['report', 'nowhere']) == 66",
    ],
)
def test_torch_is_not_imported_for(code):
    check = f"import sys\n{code}\nassert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_version_is_one():
    from importlib.metadata import version

    assert version("unfooled") == uf.__version__


def test_errors_are_a_tree_with_statuses_of_64_and_above():
    def below(kind):
        return {kind}.union(*(below(sub) for sub in kind.__subclasses__()))

    for kind in below(uf.errors.UnfooledError):
        assert kind.exit_status >= 64
        assert kind.__doc__
    assert issubclass(uf.errors.ParameterError, ValueError)
    assert issubclass(uf.errors.MissingExtra, ImportError)
