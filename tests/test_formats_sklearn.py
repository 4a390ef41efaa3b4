"""Classifiers of scikit-learn: answers as of `predict`, scores as far as there are any, one line to evaluate, clear refusals."""

import pickle
import warnings

import numpy as np
import pytest
import torch

import unfooled as uf
from unfooled import models
from unfooled.checks.preflight import preflight
from unfooled.models import Access

pytest.importorskip("sklearn")

from sklearn import datasets, pipeline, preprocessing
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.compose import make_column_transformer
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

pytestmark = pytest.mark.usefixtures("one_thread")

DIGITS, OF = datasets.load_digits(return_X_y=True)
DIGITS = DIGITS / 16
FITTED, TOLD = slice(0, 400), slice(400, 700)


def fit(estimator, rows=DIGITS, labels=OF):
    return estimator.fit(rows[FITTED], labels[FITTED])


def small(classes):
    """A noisy problem of so many classes, on which a weak classifier often errs and ties."""
    rows, labels = datasets.make_classification(700, 6, n_informative=4, n_classes=classes, flip_y=0.3, random_state=1)
    return rows, labels


@pytest.mark.parametrize(
    ("estimator", "classes", "access"),
    [
        (SVC(), 10, Access.SCORE),
        (SVC(decision_function_shape="ovo"), 3, Access.SCORE),
        (SVC(decision_function_shape="ovo"), 4, Access.SCORE),
        (SVC(), 2, Access.SCORE),
        (LinearSVC(), 3, Access.SCORE),
        (LogisticRegression(), 2, Access.SCORE),
        (GaussianNB(), 4, Access.SCORE),
        (KNeighborsClassifier(4), 4, Access.SCORE),
        (DecisionTreeClassifier(max_depth=4), 3, Access.SCORE),
        (RandomForestClassifier(8, random_state=0), 10, Access.SCORE),
        (BaggingClassifier(LogisticRegression(), 3, random_state=0), 4, Access.SCORE),
        (pipeline.make_pipeline(preprocessing.StandardScaler(), SVC()), 4, Access.SCORE),
        (GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2), 3, Access.SCORE),
        (FixedThresholdClassifier(LogisticRegression(), threshold=0.2), 2, Access.SCORE),
        (VotingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier(max_depth=2))]), 3, Access.DECISION),
    ],
)
def test_it_answers_what_predict_answers(estimator, classes, access):
    rows, labels = (DIGITS, OF) if classes == 10 else small(classes)
    fitted = fit(estimator, rows, labels)
    model = models.brought(fitted)
    assert model.access is access
    answers = model(torch.from_numpy(rows[TOLD]))
    assert answers.shape == (300, classes)
    assert np.array_equal(answers.argmax(1).numpy(), fitted.predict(rows[TOLD]))
    assert float((answers.argmax(1).numpy() == labels[TOLD]).mean()) == fitted.score(rows[TOLD], labels[TOLD])


def test_scores_point_where_the_classifier_does():
    fitted = fit(LogisticRegression(max_iter=300))
    scores = models.brought(fitted)(torch.from_numpy(DIGITS[TOLD]))
    assert scores.dtype == torch.float64
    np.testing.assert_array_equal(scores.numpy(), fitted.decision_function(DIGITS[TOLD]))
    forest = fit(RandomForestClassifier(8, random_state=0))
    scores = models.brought(forest)(torch.from_numpy(DIGITS[TOLD]))
    np.testing.assert_allclose(scores.exp().numpy(), forest.predict_proba(DIGITS[TOLD]), atol=1e-9)


def test_pairwise_margins_become_scores_of_classes():
    rows, labels = small(3)
    fitted = fit(SVC(decision_function_shape="ovo"), rows, labels)
    a, b, c = fitted.decision_function(rows[TOLD]).T
    scores = models.brought(fitted)(torch.from_numpy(rows[TOLD])).numpy()
    plain = np.stack([a + b, c - a, -b - c], 1)
    agrees = plain.argmax(1) == fitted.predict(rows[TOLD])
    assert agrees.mean() > 0.9
    np.testing.assert_allclose(scores[agrees], plain[agrees])


def test_the_class_that_is_answered_leads_by_more_than_rounding():
    rows, labels = small(2)
    fitted = fit(FixedThresholdClassifier(LogisticRegression(), threshold=0.2), rows, labels)
    scores = models.brought(fitted)(torch.from_numpy(rows[TOLD]))
    proba = fitted.predict_proba(rows[TOLD])
    moved = proba.argmax(1) != fitted.predict(rows[TOLD])
    assert moved.sum() > 10
    lead = (scores[:, 1] - scores[:, 0])[torch.from_numpy(moved)]
    assert bool((lead >= 1e-4).all())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_images_are_flattened_as_it_was_fitted(dtype):
    rows = np.random.default_rng(0).random((700, 4, 4, 3)).astype(dtype)
    labels = (rows[..., 0].mean((1, 2)) > rows[..., 2].mean((1, 2))).astype(int)
    images = torch.from_numpy(rows).permute(0, 3, 1, 2)[TOLD]
    first = LogisticRegression().fit(rows[FITTED].transpose(0, 3, 1, 2).reshape(400, -1), labels[FITTED])
    last = LogisticRegression().fit(rows[FITTED].reshape(400, -1), labels[FITTED])
    wrap = models.formats.sklearn.wrap
    assert np.array_equal(wrap(first)(images).argmax(1), first.predict(images.reshape(300, -1).numpy()))
    assert np.array_equal(wrap(last, last=True)(images).argmax(1), last.predict(rows[TOLD].reshape(300, -1)))


def test_classes_of_any_name_are_counted_from_0():
    names = np.array(["cat", "dog", "ant", "bee"])
    rows, labels = small(4)
    fitted = fit(GaussianNB(), rows, names[labels])
    model = models.brought(fitted)
    assert model.facts.classes == ("ant", "bee", "cat", "dog")
    answers = np.array(model.facts.classes)[model(torch.from_numpy(rows[TOLD])).argmax(1)]
    assert np.array_equal(answers, fitted.predict(rows[TOLD]))
    signed = fit(SVC(), rows, np.where(labels > 1, 1, -1))
    assert models.brought(signed).facts.classes == ("-1", "1")
    assert models.brought(fit(SVC())).facts.classes == ()


class Reversed(ClassifierMixin, BaseEstimator):
    """Classes in another order than that of their names."""

    def fit(self, rows, labels):
        self.classes_, self.n_features_in_ = np.array([2, 0, 1]), 1
        return self

    def predict(self, rows):
        return rows[:, 0].round().astype(int)


def test_classes_keep_the_order_that_the_classifier_gives_them():
    model = models.brought(Reversed().fit(None, None))
    assert model.facts.classes == ("2", "0", "1")
    assert model(torch.tensor([[0.0], [1.0], [2.0]])).argmax(1).tolist() == [1, 2, 0]
    with pytest.raises(uf.errors.ModelError, match="answered 7, which is none of its classes"):
        model(torch.tensor([[1.0], [7.0]]))


def test_columns_may_be_chosen_by_name():
    pandas = pytest.importorskip("pandas")
    rows, labels = small(3)
    table = pandas.DataFrame(rows, columns=list("abcdef"))
    chosen = make_column_transformer((preprocessing.StandardScaler(), ["b", "e"]), remainder="passthrough")
    fitted = pipeline.make_pipeline(chosen, SVC()).fit(table[FITTED], labels[FITTED])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = models.brought(fitted)(torch.from_numpy(rows[TOLD])).argmax(1)
    assert np.array_equal(answers, fitted.predict(table[TOLD]))


@pytest.mark.parametrize("spec", ["made.py:make", "made.py:ready"])
def test_a_file_may_make_one_or_hold_one(tmp_path, spec):
    (tmp_path / "made.py").write_text(
        "from sklearn.svm import SVC\n"
        "def make():\n    return SVC().fit([[0.0], [1.0], [0.1], [0.9]], [0, 1, 0, 1])\n"
        "ready = make()\n"
    )
    model = models.load(f"{tmp_path}/{spec}")
    assert model(torch.tensor([[0.2], [0.8]])).argmax(1).tolist() == [0, 1]


def test_rows_keep_their_precision_and_their_own_bounds(tmp_path):
    """In float32 some of the smallest values would lie below the least."""
    rows, labels = small(2)
    np.savez(tmp_path / "rows.npz", images=rows, labels=labels)
    held = uf.data.load(str(tmp_path / "rows.npz"))
    assert held.floats().dtype == torch.float64
    assert held.floats(torch.float32).dtype == torch.float32
    bounds = (torch.from_numpy(rows.min(0)), torch.from_numpy(rows.max(0)))
    found = uf.attack(
        fit(SVC(), rows, labels), held.floats(), held.labels, uf.Linf(0.2, bounds=bounds), "square:steps=3"
    )
    assert found.adversarial.dtype == torch.float64


@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (-20.0, 20.0)])
def test_rows_of_a_table_are_no_pixels(bounds):
    rows, labels = small(2)
    weight = torch.from_numpy(np.stack([-rows[labels == 1].mean(0), rows[labels == 1].mean(0)]))
    threat = uf.Linf(0.01, bounds=bounds)
    found = preflight(lambda x: x @ weight.T, torch.from_numpy(rows[TOLD]), torch.from_numpy(labels[TOLD]), threat)
    assert not {one.code for one in found.findings} & {"eps-below-8-bit-step", "unbounded-survivors"}


def test_an_evaluation_is_one_line():
    fitted = SVC().fit(DIGITS[:100], OF[:100])
    found = uf.evaluate(fitted, (DIGITS[400:412], OF[400:412]), uf.L2(1.5), "quick")
    assert found.clean_accuracy.value == fitted.score(DIGITS[400:412], OF[400:412])
    assert found.robust_accuracy.attacked.value < found.clean_accuracy.value
    assert found.attacks[0].attack.startswith("square")
    assert {one.code for one in found.findings if one.severity != "note"} <= {"quick-protocol"}


def test_an_attack_is_confirmed_by_the_classifier_itself():
    rows, labels = small(3)
    fitted = fit(VotingClassifier([("a", GaussianNB()), ("b", DecisionTreeClassifier(max_depth=3))]), rows, labels)
    bounds = (torch.from_numpy(rows.min(0)), torch.from_numpy(rows.max(0)))
    some = slice(400, 430)
    found = uf.attack(fitted, rows[some], labels[some], uf.L2(1.0, bounds=bounds), "hopskipjump:steps=300")
    right = fitted.predict(rows[some]) == labels[some]
    assert np.array_equal(found.clean_correct.numpy(), right)
    assert found.success.any()
    done = found.success.numpy()
    assert (fitted.predict(found.adversarial.numpy())[done] != labels[some][done]).all()
    assert found.adversarial.dtype == torch.float64


@pytest.mark.parametrize(
    ("estimator", "said"),
    [
        (SVC(), "This SVC is not fitted: call its fit"),
        (pipeline.make_pipeline(preprocessing.StandardScaler(), SVC()), "This Pipeline is not fitted"),
        (LinearRegression().fit(DIGITS[FITTED], OF[FITTED]), "A LinearRegression is no classifier"),
        (preprocessing.StandardScaler().fit(DIGITS), "A StandardScaler is no classifier"),
        (
            MultiOutputClassifier(GaussianNB()).fit(DIGITS[FITTED], np.stack([OF, OF], 1)[FITTED]),
            "several labels for an image",
        ),
        (DecisionTreeClassifier().fit(DIGITS[:5], [3] * 5), "fitted on one class only \\(3\\)"),
    ],
)
def test_what_is_no_classifier_is_refused(estimator, said):
    with pytest.raises(uf.errors.ModelError, match=said):
        uf.evaluate(estimator, (DIGITS[:20], OF[:20]), uf.Linf(0.1))


def test_a_wrong_number_of_features_is_named():
    with pytest.raises(uf.errors.ModelError, match=r"SVC takes 64 features. Images of shape \(1, 28, 28\) have 784"):
        models.brought(fit(SVC()))(torch.rand(2, 1, 28, 28))
    with pytest.raises(uf.errors.ParameterError, match="'scale'"):
        models.formats.sklearn.wrap(fit(SVC()), scale=0)


@pytest.fixture
def saved(tmp_path):
    joblib, skops = pytest.importorskip("joblib"), pytest.importorskip("skops.io")
    fitted = fit(SVC())
    joblib.dump(fitted, tmp_path / "model.joblib")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(fitted))
    skops.dump(fitted, tmp_path / "model.skops")
    return tmp_path, fitted


@pytest.mark.parametrize("name", ["model.joblib", "model.pkl", "model.skops"])
def test_a_stored_classifier_answers_as_before(saved, name):
    folder, fitted = saved
    model = models.load(str(folder / name), allow_code=not name.endswith("skops"), scale=1 / 16)
    answers = model(torch.from_numpy(16 * DIGITS[TOLD])).argmax(1)
    assert np.array_equal(answers, fitted.predict(DIGITS[TOLD]))
    assert model.facts.source.endswith(name)
    assert model.facts.preprocessing == "times 0.0625"


def test_a_pickle_is_not_opened_unasked(saved, tmp_path):
    folder, _ = saved
    mark = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return open, (str(mark), "w")

    (tmp_path / "bomb.pkl").write_bytes(pickle.dumps(Bomb()))
    for name in ("bomb.pkl", "model.joblib"):
        with pytest.raises(uf.errors.ModelError, match="is a pickle: opening it runs code.*--allow-code"):
            models.load(str(folder / name))
    assert not mark.exists()


class Odd(GaussianNB):
    """A class that skops does not know."""


def test_unknown_types_of_skops_are_listed(tmp_path):
    skops = pytest.importorskip("skops.io")
    skops.dump(fit(Odd()), tmp_path / "odd.skops")
    with pytest.raises(uf.errors.ModelError, match=r"types that skops does not know \(.*Odd\): opening it runs code"):
        models.load(str(tmp_path / "odd.skops"))
    assert models.load(str(tmp_path / "odd.skops"), allow_code=True).access is Access.SCORE


def test_files_that_are_none_are_named(saved):
    folder, _ = saved
    (folder / "text.pkl").write_text("hello")
    (folder / "text.skops").write_text("hello")
    (folder / "dict.pkl").write_bytes(pickle.dumps({"a": 1}))
    for name, said in (
        ("text.pkl", "cannot be opened"),
        ("text.skops", "cannot be opened"),
        ("dict.pkl", "A dict is no"),
    ):
        with pytest.raises(uf.errors.ModelError, match=said):
            models.load(str(folder / name), allow_code=True)
    with pytest.raises(uf.errors.MissingData, match=r"no file .*gone\.joblib"):
        models.load(str(folder / "gone.joblib"))
    with pytest.raises(uf.errors.ParameterError, match="leave weights.pt out"):
        models.load(str(folder / "model.skops"), "weights.pt")
    with pytest.raises(uf.errors.UnknownName, match="no option 'size'.*scale, last"):
        models.load(str(folder / "model.skops"), size=3)


def test_another_version_is_told(saved, monkeypatch):
    import sklearn.base

    folder, fitted = saved
    monkeypatch.setattr(sklearn.base, "__version__", "1.0.0")
    (folder / "old.pkl").write_bytes(pickle.dumps(fitted))
    monkeypatch.undo()
    with pytest.warns(uf.errors.Note, match=r"old\.pkl was saved by scikit-learn 1\.0\.0"):
        models.load(str(folder / "old.pkl"), allow_code=True)
