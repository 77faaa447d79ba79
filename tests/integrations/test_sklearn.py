"""scikit-learn's `n_jobs` runs on shoal with the results that one process gives."""

from collections.abc import Iterator

import joblib
import numpy as np
import pytest

import shoal

sklearn = pytest.importorskip("sklearn")

from sklearn.datasets import load_digits  # noqa: E402
from sklearn.decomposition import PCA  # noqa: E402
from sklearn.ensemble import RandomForestClassifier  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score, permutation_test_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.svm import SVC  # noqa: E402

# numpy's threads sum in another order; times are times.
pytestmark = pytest.mark.timeout(200)

X, Y = load_digits(return_X_y=True)
X, Y = X[:400], Y[:400]


@pytest.fixture(autouse=True)
def backend() -> Iterator[None]:
    """shoal is the backend."""
    shoal.joblib.register()
    with joblib.parallel_config(backend="shoal"):
        yield


def test_a_grid_search_finds_the_same() -> None:
    grid = {"C": [0.1, 1, 10], "gamma": [1e-3, 1e-4]}
    one, two = (GridSearchCV(SVC(), grid, cv=3, n_jobs=jobs).fit(X, Y) for jobs in (1, 2))
    assert one.best_params_ == two.best_params_
    np.testing.assert_array_equal(one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"])


def test_scores_of_a_pipeline_are_the_same() -> None:
    pipeline = make_pipeline(PCA(20, random_state=0), LogisticRegression(max_iter=500))
    one, two = (cross_val_score(pipeline, X, Y, cv=3, n_jobs=jobs) for jobs in (1, 2))
    np.testing.assert_allclose(one, two)


def test_scores_of_permutations_are_the_same() -> None:
    one, two = (permutation_test_score(SVC(), X, Y, cv=2, n_permutations=6, random_state=0, n_jobs=n) for n in (1, 2))
    np.testing.assert_array_equal(one[1], two[1])


def test_a_forest_that_wants_threads_has_them() -> None:
    one, two = (RandomForestClassifier(20, random_state=0, n_jobs=jobs).fit(X, Y) for jobs in (1, 2))
    np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))


def test_arrays_of_a_search_can_be_written_to() -> None:
    def scale_in_place(estimator: object, x: np.ndarray, y: np.ndarray) -> float:
        x *= 2
        return float(x.sum())

    large = np.ones((4000, 64))
    scores = cross_val_score(SVC(), large, np.arange(4000) % 2, cv=2, n_jobs=2, scoring=scale_in_place)
    assert list(scores) == [2 * 2000 * 64] * 2
    assert large.sum() == large.size
