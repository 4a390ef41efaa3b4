"""ONNX files: with gradients through onnx2torch, as black boxes through onnxruntime, and what is wrong with some of them."""

import copy
import importlib.util
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import unfooled as uf
from unfooled import models
from unfooled.errors import MissingData, MissingExtra, ModelError, Note, ParameterError, UnknownName
from unfooled.models import Access, facts_of

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
if importlib.util.find_spec("onnx2torch") is None:  # it imports torchvision, which may need help
    pytest.skip("needs onnx2torch", allow_module_level=True)
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network():
    return models.load("fashion-mnist/plain")


@pytest.fixture(scope="module")
def some():
    found = uf.data.load("fashion-mnist-sample[0:64]")
    return found.floats(), found.labels


def export(module, path, shape=(1, 28, 28), rows=2, fixed=False, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), (torch.rand(rows, *shape),), str(path), dynamo=False, input_names=["images"],
            output_names=["answer"], dynamic_axes=None if fixed else {"images": {0: "n"}, "answer": {0: "n"}}, **options,
        )  # fmt: skip
    return str(path)


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    return export(network, tmp_path_factory.mktemp("onnx") / "plain.onnx")


def graph(path, nodes, output=("answer", TensorProto.FLOAT, ["n", 3]), shape=("n", 1, 4, 4), kind=TensorProto.FLOAT,
          opset=17, more=(), domains=(), metadata=None):  # fmt: skip
    """A file of hand-made nodes from `images` to `answer`, with the weights `w` (3, 16) and `b`."""
    weights = np.random.default_rng(0).normal(size=(3, 16)).astype(np.float32)
    held = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.zeros(3, np.float32), "b"), *more]
    outputs = [output] if isinstance(output[0], str) else output
    made = helper.make_model(
        helper.make_graph(
            nodes, "g", [helper.make_tensor_value_info("images", kind, shape)],
            [helper.make_tensor_value_info(*one) for one in outputs], held,
        ),
        opset_imports=[helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)], ir_version=8,
    )  # fmt: skip
    helper.set_model_props(made, metadata or {})
    onnx.save(made, path)
    return str(path)


def linear(output="answer", images="images"):
    return [helper.make_node("Flatten", [images], ["flat"]),
            helper.make_node("Gemm", ["flat", "w", "b"], [output], transB=1)]  # fmt: skip


def accuracy(model, images, labels):
    with torch.no_grad():
        return float((models.logits_of(model(images), len(images)).argmax(1) == labels).float().mean())


# --- both ways --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("access", "level"), [(None, Access.GRADIENT), ("scores", Access.SCORE)])
def test_a_file_answers_as_the_network_that_it_was_written_from(network, some, file, access, level):
    model = models.load(file, access=access)
    facts, found = facts_of(model)
    assert found is level
    assert facts.format.endswith("through onnx2torch" if access is None else "through onnxruntime")
    assert (facts.source, facts.size, facts.preprocessing) == (file, (1, 28, 28), "")
    with torch.no_grad():
        torch.testing.assert_close(model(some[0]), network(some[0]), rtol=1e-4, atol=1e-4)
    assert accuracy(model, *some) == accuracy(network, *some)


@pytest.mark.parametrize("access", [None, "scores"])
def test_it_is_evaluated(network, some, file, access):
    few = (some[0][:8], some[1][:8])
    found = uf.evaluate(models.load(file, access=access), few, uf.Linf(0.1), "quick")
    assert found.clean_accuracy.value == accuracy(network, *few)
    assert found.robust_accuracy.attacked.value < found.clean_accuracy.value
    assert {one.code for one in found.findings if one.severity != "note"} <= {"quick-protocol", "few-images"}
    assert (access == "scores") == any(one.code == "limited-access" for one in found.findings)


def test_the_gradients_are_those_of_the_network(network, some, file):
    threat = uf.Linf(0.05)
    found = uf.attack(models.load(file), *some, threat, "pgd:steps=5", seed=1)
    same = uf.attack(network, *some, threat, "pgd:steps=5", seed=1)
    assert float((found.success == same.success).float().mean()) >= 0.98


def test_what_torch_exports_by_default_converts(network, some, tmp_path):
    pytest.importorskip("onnxscript")
    path = tmp_path / "new.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (some[0][:2],), str(path), dynamo=True, verbose=False,
                          dynamic_shapes=({0: torch.export.Dim("n")},))  # fmt: skip
    model = models.load(str(path))
    assert facts_of(model)[1] is Access.GRADIENT
    with torch.no_grad():
        torch.testing.assert_close(model(some[0]), network(some[0]), rtol=1e-4, atol=1e-4)
    data = path.with_name("new.onnx.data")
    if data.exists():
        data.unlink()
        with pytest.raises(MissingData, match="keeps its weights in another file"):
            models.load(str(path))


class Attention(nn.Module):
    """Operators that opset 17 writes otherwise or not at all: GELU, means and parts along axes, a mean of squares."""

    def __init__(self):
        super().__init__()
        self.patches, self.attend = (
            nn.Conv2d(1, 16, 7, 7),
            nn.TransformerEncoderLayer(16, 2, 32, 0.0, "gelu", batch_first=True),
        )
        self.groups, self.out = nn.GroupNorm(4, 16), nn.Linear(8, 10)

    def forward(self, images):
        seen = self.attend(self.groups(self.patches(images)).flatten(2).transpose(1, 2)).mean(1)
        left, right = seen.chunk(2, 1)
        return self.out(left * right.sigmoid()) / (seen * seen).mean(1, keepdim=True).sqrt()


@pytest.mark.parametrize("opset", [14, 17, 18, 20])
def test_operators_of_many_opsets_convert(tmp_path, opset):
    torch.manual_seed(0)
    module = Attention()
    model = models.load(export(module, tmp_path / "m.onnx", opset_version=opset))
    assert facts_of(model)[1] is Access.GRADIENT
    assert f"opset {opset}" in facts_of(model)[0].format
    images = torch.rand(5, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(model(images), module(images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("opset", [9, 11, 13])
def test_files_of_old_opsets_convert(tmp_path, opset):
    torch.manual_seed(0)
    module = models.SmallResNet(1, 10).eval()
    model = models.load(export(module, tmp_path / "m.onnx", opset_version=opset, export_params=True))
    assert facts_of(model)[1] is Access.GRADIENT
    images = torch.rand(3, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(model(images), module(images), rtol=1e-3, atol=1e-4)


def test_copies_and_pickles_answer_the_same(some, file):
    for access in (None, "scores"):
        model = models.load(file, access=access)
        expected = model(some[0][:4])
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(some[0][:4]), expected)


# --- what stands in the way of gradients -----------------------------------------------------------------------


def test_an_operator_that_does_not_convert_leaves_a_black_box(tmp_path):
    path = graph(tmp_path / "det.onnx", [helper.make_node("Hardmax", ["images"], ["hard"]), *linear(images="hard")])
    with pytest.warns(
        Note, match="det.onnx is taken as a black box, which gives scores only: onnx2torch does not know Hardmax"
    ):
        model = models.load(path)
    assert facts_of(model)[1] is Access.SCORE
    found = uf.evaluate(model, (torch.rand(20, 1, 4, 4), torch.randint(0, 3, (20,))), uf.Linf(0.1), "quick")
    assert all(cost.backward == 0 for cost in found.attacks)
    with pytest.raises(ModelError, match="det.onnx gives no gradients: onnx2torch does not know Hardmax"):
        models.load(path, access="gradients")


def test_whole_numbers_are_pixels_from_0_to_255_and_have_no_gradients(tmp_path):
    path = graph(tmp_path / "u.onnx", [helper.make_node("Cast", ["images"], ["x"], to=1), *linear(images="x")],
                 kind=TensorProto.UINT8)  # fmt: skip
    with pytest.warns(Note, match="takes uint8, and rounding has no gradients"):
        model = models.load(path)
    images = torch.randint(0, 256, (4, 1, 4, 4))
    weights = numpy_helper.to_array(onnx.load(path).graph.initializer[0])
    expected = images.float().flatten(1) @ torch.from_numpy(weights.copy()).T
    torch.testing.assert_close(model(images / 255), expected, rtol=1e-4, atol=1e-3)
    assert facts_of(model)[0].preprocessing == "255 times the pixels, rounded"


def test_a_wrong_conversion_is_refused(monkeypatch, some, file, network):
    from unfooled.models.formats import onnx_run

    class Off(nn.Module):
        """Right on noise, wrong on photographs: on random images alone nobody would notice."""

        def forward(self, images):
            logits = network(images)
            return logits + 0.05 * (images.flatten(1) == 0).float().mean(1, keepdim=True) * torch.arange(10)

    monkeypatch.setattr(onnx_run, "convert", lambda model: Off().eval())
    model = models.load(file)
    with pytest.raises(ModelError, match=r"logits differ by up to 0\.\d+, where rounding explains.*access=scores"):
        uf.evaluate(model, some, uf.Linf(0.1), "quick")
    monkeypatch.setattr(onnx_run, "convert", lambda model: nn.Sequential(network, nn.Softmax(1)).eval())
    with pytest.raises(ModelError, match="is another network than onnxruntime runs"):
        models.load(file)
    monkeypatch.setattr(onnx_run, "convert", lambda model: nn.Sequential(network, nn.Linear(10, 9)).eval())
    with pytest.raises(ModelError, match=r"shape \(2, 9\), onnxruntime of shape \(2, 10\)"):
        models.load(file)


def test_only_the_first_images_are_compared(some, file):
    model = models.load(file)
    (converted,) = [m for m in model.modules() if type(m).__name__ == "Converted"]
    with torch.no_grad():
        for _ in range(8):
            model(some[0])
        before = converted.left
        model(some[0])
    assert before == converted.left <= 0


def test_what_was_converted_and_cannot_run_leaves_a_black_box(monkeypatch, file):
    from unfooled.models.formats import onnx_run

    class Fails(nn.Module):
        def forward(self, images):
            raise NotImplementedError("no such mode")

    monkeypatch.setattr(onnx_run, "convert", lambda model: Fails())
    with pytest.warns(Note, match="does not run \\(no such mode\\)"):
        assert facts_of(models.load(file))[1] is Access.SCORE


def test_names_in_a_file_are_not_run(tmp_path):
    bad = 'a", print("code was run")) + getattr(self, "a'
    nodes = linear()
    nodes[1].name = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error", Note)
        model = models.load(graph(tmp_path / "bad.onnx", nodes))
    assert model(torch.rand(2, 1, 4, 4)).shape == (2, 3)
    assert not any("print" in name for name, _ in model.named_modules())


# --- the shapes of what goes in and comes out -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "access"), [("softmax", None), ("softmax", "scores"), ("sigmoid", None), ("sigmoid", "scores")]
)
def test_a_softmax_or_sigmoid_at_the_end_is_left_out(tmp_path, end, access):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    path = export(
        nn.Sequential(body, nn.Softmax(1) if end == "softmax" else nn.Sigmoid()), tmp_path / "p.onnx", (1, 4, 4)
    )
    model = models.load(path, access=access)
    images = torch.rand(5, 1, 4, 4)
    torch.testing.assert_close(model(images), body(images), rtol=1e-4, atol=1e-5)
    assert facts_of(model)[0].format.endswith(f", final {end.capitalize()} left out")


def test_one_probability_means_two_classes(tmp_path):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))
    path = export(nn.Sequential(body, nn.Sigmoid()), tmp_path / "p.onnx", (1, 4, 4))
    images = torch.rand(40, 1, 4, 4)
    for access in (None, "scores"):
        logits = models.logits_of(models.load(path, access=access)(images), 40)
        assert torch.equal(logits.argmax(1), (body(images)[:, 0] > 0).long())


def test_probabilities_of_a_black_box_become_logits(tmp_path):
    nodes = [*linear("scores"), helper.make_node("Softmax", ["scores"], ["soft"]),
             helper.make_node("Hardmax", ["soft"], ["hard"]), helper.make_node("Mul", ["hard", "zero"], ["none"]),
             helper.make_node("Add", ["soft", "none"], ["answer"])]  # fmt: skip
    path = graph(tmp_path / "p.onnx", nodes, more=[numpy_helper.from_array(np.zeros(1, np.float32), "zero")])
    with pytest.warns(Note, match="Hardmax"):
        model = models.load(path)
    images = torch.rand(3, 1, 4, 4)
    torch.testing.assert_close(
        model(images), models.load(path, output="scores")(images).log_softmax(1), rtol=1e-4, atol=1e-4
    )


class OneRow(nn.Module):
    """A network that a batch size is written into."""

    def __init__(self, rows):
        super().__init__()
        self.rows, self.body = rows, nn.Linear(16, 3)

    def forward(self, images):
        return self.body(images.reshape(self.rows, 16))


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("access", [None, "scores"])
def test_a_file_for_batches_of_one_size_takes_any(tmp_path, rows, access):
    torch.manual_seed(0)
    module = OneRow(rows)
    model = models.load(export(module, tmp_path / "m.onnx", (1, 4, 4), rows, fixed=True), access=access)
    images = torch.rand(7, 1, 4, 4)
    expected = module.body(images.flatten(1))
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)
    if access is None:
        assert "in pieces" in facts_of(model)[0].format
        images.requires_grad_()
        (gradient,) = torch.autograd.grad(model(images)[:, 0].sum(), images)
        torch.testing.assert_close(gradient.flatten(1), module.body.weight[:1].expand(7, -1), rtol=1e-4, atol=1e-5)


def test_a_declared_batch_that_nothing_depends_on_is_no_hindrance(tmp_path):
    path = export(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), tmp_path / "m.onnx", (1, 4, 4), 1, fixed=True)
    assert "pieces" not in facts_of(models.load(path))[0].format


def test_a_batch_that_is_not_declared_is_found(tmp_path):
    nodes = [helper.make_node("Reshape", ["images", "to"], ["flat"]), linear()[1]]
    path = graph(tmp_path / "m.onnx", nodes, more=[numpy_helper.from_array(np.array([1, 16]), "to")])
    for access in (None, "scores"):
        assert models.load(path, access=access)(torch.rand(4, 1, 4, 4)).shape == (4, 3)


@pytest.mark.parametrize("access", [None, "scores"])
def test_channels_last_is_seen_from_the_shape(tmp_path, access):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(5 * 6 * 3, 4)).eval()
    path = export(body, tmp_path / "m.onnx", (5, 6, 3))
    model = models.load(path, access=access)
    images = torch.rand(4, 3, 5, 6)
    torch.testing.assert_close(model(images), body(images.permute(0, 2, 3, 1)), rtol=1e-4, atol=1e-5)
    assert (facts_of(model)[0].size, facts_of(model)[0].preprocessing) == ((3, 5, 6), "channels last")
    first = models.load(path, last=False)
    assert facts_of(first)[0].size == (5, 6, 3)


@pytest.mark.parametrize("access", [None, "scores"])
def test_mean_std_and_size_become_part_of_the_model(tmp_path, access):
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    path = export(body, tmp_path / "m.onnx", (3, 8, 8))
    model = models.load(path, access=access, mean="0.485,0.456,0.406", std="0.229,0.224,0.225")
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    images = torch.rand(4, 3, 8, 8)
    torch.testing.assert_close(model(images), body((images - mean) / std), rtol=1e-4, atol=1e-5)
    assert facts_of(model)[0].preprocessing == "minus mean (0.485, 0.456, 0.406), over std (0.229, 0.224, 0.225)"
    with pytest.raises(ModelError, match=r"takes images of shape \(3, 8, 8\). These have \(3, 16, 16\).*size=8 "):
        model(torch.rand(2, 3, 16, 16))
    grown = models.load(path, access=access, mean=0.5, std=0.25, size=8)
    flat = torch.full((2, 1, 16, 16), 0.75)
    torch.testing.assert_close(grown(flat), body(torch.ones(2, 3, 8, 8)), rtol=1e-4, atol=1e-5)
    assert "resized to 8×8" in facts_of(grown)[0].preprocessing
    if access is None:
        images = torch.rand(2, 3, 16, 16, requires_grad=True)
        (gradient,) = torch.autograd.grad(grown(images).logsumexp(1).sum(), images)
        assert gradient.shape == images.shape
        assert bool(gradient.abs().amax((2, 3)).all())


def test_height_and_width_that_are_open_stay_open(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    path = str(tmp_path / "m.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (torch.rand(1, 3, 16, 16),), path, dynamo=False, input_names=["x"],
                          dynamic_axes={"x": {0: "n", 2: "h", 3: "w"}})  # fmt: skip
    model = models.load(path)
    assert facts_of(model)[0].size is None
    for side in (16, 20):
        images = torch.rand(2, 3, side, side)
        torch.testing.assert_close(model(images), module(images), rtol=1e-4, atol=1e-5)


def test_rows_of_a_table_and_double_precision(tmp_path):
    torch.manual_seed(0)
    module = nn.Linear(6, 3).double()
    path = str(tmp_path / "m.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.rand(2, 6).double(),), path, dynamo=False, input_names=["x"],
                          dynamic_axes={"x": {0: "n"}})  # fmt: skip
    for access in (None, "scores"):
        model = models.load(path, access=access)
        rows = torch.rand(4, 6).double()
        torch.testing.assert_close(model(rows), module(rows))
        assert facts_of(model)[0].size == (6,)


# --- outputs, names and labels ----------------------------------------------------------------------------------


def test_several_outputs(tmp_path):
    two = [("features", TensorProto.FLOAT, ["n", 16]), ("answer", TensorProto.FLOAT, ["n", 3])]
    nodes = [helper.make_node("Flatten", ["images"], ["features"]),
             helper.make_node("Gemm", ["features", "w", "b"], ["answer"], transB=1)]  # fmt: skip
    path = graph(tmp_path / "two.onnx", nodes, two)
    with pytest.raises(ParameterError, match="several outputs.*output=NAME: one of features, answer"):
        models.load(path)
    assert models.load(path, output="answer")(torch.rand(2, 1, 4, 4)).shape == (2, 3)
    with pytest.raises(UnknownName, match="no output in .* named 'anser'. Did you mean 'answer'"):
        models.load(path, output="anser")
    nodes[1].output[0] = "the_logits"
    path = graph(tmp_path / "named.onnx", nodes, [two[0], ("the_logits", TensorProto.FLOAT, ["n", 3])])
    assert models.load(path)(torch.rand(2, 1, 4, 4)).shape == (2, 3)


@pytest.mark.parametrize(
    ("key", "value", "names"),
    [("names", "{0: 'cat', 1: 'dog', 2: 'fish'}", ("cat", "dog", "fish")), ("classes", "cat, dog, fish", ("cat", "dog", "fish")),
     ("id2label", '{"0": "cat", "2": "fish", "1": "dog"}', ("cat", "dog", "fish")), ("labels", '["a", "b", "c"]', ("a", "b", "c")),
     ("names", "['a', 'b']", ()), ("names", "__import__('os')", ()), ("labels", '{"0": "a", "7": "b"}', ())],
)  # fmt: skip
def test_names_of_classes_are_read_from_the_metadata(tmp_path, key, value, names):
    path = graph(tmp_path / "m.onnx", linear(), metadata={key: value})
    assert facts_of(models.load(path))[0].classes == names


def test_labels_only(tmp_path):
    nodes = [*linear("scores"), helper.make_node("ArgMax", ["scores"], ["answer"], axis=1, keepdims=0)]
    path = graph(tmp_path / "m.onnx", nodes, ("answer", TensorProto.INT64, ["n"]))
    with (
        pytest.raises(ParameterError, match="answers labels only.*classes=10"),
        pytest.warns(Note, match="it answers labels"),
    ):
        models.load(path)
    model = models.load(path, classes=3, access="scores")
    assert facts_of(model)[1] is Access.DECISION
    images = torch.rand(6, 1, 4, 4)
    assert torch.equal(model(images).argmax(1), models.load(path, output="scores")(images).argmax(1))


# --- what is wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\x80\x04\x95garbage", b"PK\x03\x04"])
def test_files_that_are_not_onnx(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match="m.onnx is no ONNX file") as caught:
        models.load(str(tmp_path / "m.onnx"))
    assert "\n" not in str(caught.value)


def test_a_file_cut_short(tmp_path, file):
    whole = Path(file).read_bytes()
    (tmp_path / "m.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError) as caught:
        models.load(str(tmp_path / "m.onnx"))
    assert "\n" not in str(caught.value)


def test_bad_graphs(tmp_path):
    cases = [
        (graph(tmp_path / "a.onnx", linear(), opset=99), "has opset 99, and the installed onnx"),
        (graph(tmp_path / "b.onnx", [helper.make_node("Gemm", ["nothing", "w", "b"], ["answer"])]), "onnxruntime .* cannot open"),
        (graph(tmp_path / "c.onnx", [helper.make_node("Mine", ["images"], ["answer"], domain="my.own")], domains=["my.own"]),
         "cannot open the file: .*Mine"),
        (graph(tmp_path / "d.onnx", [helper.make_node("Relu", ["images"], ["answer"])], ("answer", 1, ["n", 1, 4, 4])),
         r"must answer logits of shape \(N, classes\).*\(2, 1, 4, 4\)"),
        (graph(tmp_path / "e.onnx", linear(), shape=("n", 1, 5, 5)), "onnxruntime .*cannot open the file: Node .*mismatch"),
        (graph(tmp_path / "f.onnx", [helper.make_node("Cast", ["images"], ["x"], to=1), *linear(images="x")], kind=TensorProto.INT8),
         "takes int8: what its numbers mean"),
        (graph(tmp_path / "g.onnx", linear(), kind=TensorProto.STRING), "must be a tensor of numbers"),
    ]  # fmt: skip
    for path, said in cases:
        with pytest.raises(ModelError, match=said) as caught:
            models.load(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500


def test_two_inputs(tmp_path):
    path = graph(tmp_path / "m.onnx", linear())
    made = onnx.load(path)
    made.graph.input.append(helper.make_tensor_value_info("mask", 1, ["n", 4]))
    onnx.save(made, path)
    with pytest.raises(ModelError, match="must have one input, the images. It has 2: 'images', 'mask'"):
        models.load(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"access": "labels"}, "'access'.*'scores' or 'gradients'"), ({"last": "yes"}, "'last'"), ({"mean": 0.5}, "mean and std together"),
     ({"mean": "a,b", "std": 1}, "'mean' parameter"), ({"mean": "0,0", "std": "1,1,1"}, "as many means as stds"),
     ({"mean": 0.5, "std": 0}, "'std'.*above 0"), ({"size": "big"}, "'size'"), ({"size": 0}, "'size'"), ({"size": "1x2x3"}, "'size'"),
     ({"meen": 1}, "no option 'meen'.*mean"), ({"weights": "w.safetensors"}, "leave --weights out")],
)  # fmt: skip
def test_wrong_options(file, options, said):
    with pytest.raises(ParameterError, match=said):
        models.load(file, **options)


def test_missing_files_and_packages(file, monkeypatch):
    with pytest.raises(MissingData, match="There is no ONNX file nowhere.onnx"):
        models.load("nowhere.onnx")
    from unfooled.models.formats import onnx as form

    real = form.importlib.util.find_spec
    monkeypatch.setattr(
        form.importlib.util, "find_spec", lambda name, *a: None if name == "onnx2torch" else real(name, *a)
    )
    with pytest.raises(MissingExtra, match='need onnx2torch: pip install "unfooled\\[onnx\\]"'):
        models.load(file)
    models.load(file, access="scores")


# --- a sigmoid behind other operators ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "after",
    [
        [("Cast", ["share"], {"to": TensorProto.DOUBLE})],
        [("Squeeze", ["share", "last"], {})],
        [("QuantizeLinear", ["share", "scale", "zero"], {}), ("DequantizeLinear", ["t0", "scale", "zero"], {})],
    ],
)
def test_one_probability_behind_other_operators_is_not_taken_for_a_logit(tmp_path, after):
    weights = np.random.default_rng(1).normal(size=(1, 16)).astype(np.float32)
    more = [
        numpy_helper.from_array(weights, "w1"), numpy_helper.from_array(-weights.sum(1) / 2, "b1"),
        numpy_helper.from_array(np.array([1], np.int64), "last"),
        numpy_helper.from_array(np.float32(1 / 255), "scale"), numpy_helper.from_array(np.uint8(0), "zero"),
    ]  # fmt: skip
    nodes = [helper.make_node("Flatten", ["images"], ["flat"]),
             helper.make_node("Gemm", ["flat", "w1", "b1"], ["z"], transB=1),
             helper.make_node("Sigmoid", ["z"], ["share"])]  # fmt: skip
    for at, (kind, inputs, attributes) in enumerate(after):
        nodes.append(helper.make_node(kind, inputs, ["answer" if at == len(after) - 1 else f"t{at}"], **attributes))
    shape = ["n"] if after[0][0] == "Squeeze" else ["n", 1]
    element = TensorProto.DOUBLE if after[0][0] == "Cast" else TensorProto.FLOAT
    path = graph(tmp_path / "m.onnx", nodes, output=("answer", element, shape), more=more)
    images = torch.rand(40, 1, 4, 4)
    expected = (images.flatten(1).numpy() @ weights.T - weights.sum(1) / 2).ravel() > 0
    assert 5 < expected.sum() < 35
    for access in (None, "scores"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Note)
            found = models.logits_of(models.load(path, access=access)(images), 40).argmax(1)
        assert np.array_equal(found.numpy(), expected)


def test_a_classifier_of_scikit_learn_brings_its_names(tmp_path):
    nodes = [helper.make_node("Flatten", ["images"], ["flat"]),
             helper.make_node("LinearClassifier", ["flat"], ["label", "answer"], domain="ai.onnx.ml",
                              coefficients=[0.1] * 48, intercepts=[0.0] * 3, classlabels_strings=["b", "a", "c"])]  # fmt: skip
    outputs = [("label", TensorProto.STRING, ["n"]), ("answer", TensorProto.FLOAT, ["n", 3])]
    with pytest.warns(Note, match="black box"):
        model = models.load(graph(tmp_path / "m.onnx", nodes, output=outputs, domains=["ai.onnx.ml"]))
    assert facts_of(model)[0].classes == ("b", "a", "c")
