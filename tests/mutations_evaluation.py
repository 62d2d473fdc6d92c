"""Mutations of metrics, verdicts, and profiles of rules."""

from mutations_around import Mutation

_DEFINITIONS = "test_faithfulness.py::test_metrics_equal_their_definitions"

EVALUATION = [
    Mutation(
        "evaluation/curves.py",
        "return (curves[:, :-1] + curves[:, 1:]).mean(axis=1) / 2",
        "return curves.mean(axis=1)",
        f"{_DEFINITIONS}[deletion]",
    ),
    Mutation(
        "evaluation/curves.py",
        "return _area(self._curves(-maps, context))",
        "return _area(self._curves(maps, context))",
        f"{_DEFINITIONS}[insertion]",
    ),
    Mutation(
        "evaluation/curves.py",
        'return falls["morf"] - falls["lerf"] if',
        'return falls["morf"] + falls["lerf"] if',
        f"{_DEFINITIONS}[pixel_flipping_gap]",
    ),
    Mutation(
        "evaluation/perturbation.py",
        "missing * (weight * values - around)",
        "missing * (values - around)",
        "test_faithfulness.py::test_imputation_solves_its_equations",
    ),
    Mutation(
        "evaluation/perturbation.py",
        "flat = maps.reshape(m, pixels)[:, lot]",
        "flat = maps.reshape(m, pixels)",
        f"{_DEFINITIONS}[deletion_mean]",
    ),
    Mutation(
        "evaluation/additivity.py",
        "factor = np.nan_to_num((told * falls).sum(axis=1) / (told**2).sum(axis=1))",
        "factor = np.ones(len(told))",
        f"{_DEFINITIONS}[infidelity]",
    ),
    Mutation(
        "evaluation/additivity.py",
        "signed = context.attributions.sum(axis=-1, dtype=np.float64)",
        "signed = np.abs(context.attributions).sum(axis=-1, dtype=np.float64)",
        f"{_DEFINITIONS}[sensitivity_n]",
    ),
    Mutation(
        "evaluation/stability.py",
        "ratios = np.where(size > 0, change / size, np.nan)",
        "ratios = np.where(size > 0, change, np.nan)",
        "test_faithfulness.py::test_sensitivity_equals_its_definition[max]",
    ),
    Mutation(
        "evaluation/complexity.py",
        "weights = 2 * np.arange(1, n + 1) - n - 1",
        "weights = 2 * np.arange(n) - n - 1",
        f"{_DEFINITIONS}[sparseness]",
    ),
    Mutation(
        "evaluation/scoring.py",
        "return np.where(targets == 0, 1 - one, one)",
        "return one",
        "test_faithfulness.py::test_curves_are_of_probabilities[sigmoid]",
    ),
    Mutation(
        "evaluation/run.py",
        "others = [each[(image + 1) % n] for each in self._attributions]",
        "others = [each[image] for each in self._attributions]",
        "test_faithfulness.py::test_maps_of_another_photo_are_the_next_photos",
    ),
    Mutation(
        "evaluation/verdict.py",
        "if all(low > 0 for _, _, low, _, _ in found):",
        "if any(low > 0 for _, _, low, _, _ in found):",
        "test_faithfulness.py::test_verdicts_compare_with_every_control",
    ),
    Mutation(
        "engine/backward_vectors.py",
        "cosine = tf.abs(tf.reduce_sum(vectors[i] * vectors[j], -1)) / product",
        "cosine = tf.reduce_sum(vectors[i] * vectors[j], -1) / product",
        "test_csc.py::test_cosines_equal_their_definition[gradient]",
    ),
    Mutation(
        "sanity/input_invariance.py",
        "offset=-shift",
        "offset=-0.5 * shift",
        "test_invariance.py::test_rules_of_relus_are_invariant",
    ),
    Mutation(
        "sanity/checks.py",
        "found.append(lowest[int(lowest[0] == own)])",
        "found.append(lowest[1])",
        "test_invariance.py::test_the_least_likely_class_is_explained",
    ),
]
