"""Mutations of methods of forward passes alone, of relevance, and of attention."""

from mutations_around import Mutation

RELEVANCE = [
    Mutation(
        "methods/occlusion.py",
        "maps = change / times",
        "maps = change / tf.reduce_max(times)",
        "test_forward_only.py::test_occlusion[32-settings2-window2-stride2-0.0]",
    ),
    Mutation(
        "methods/rise.py",
        "squares = self.ssmm - 2 * mean * self.smm + mean * mean * self.mm",
        "squares = self.ssmm - mean * self.smm",
        "test_forward_only.py::test_rise_and_its_standard_error[64]",
    ),
    Mutation(
        "methods/score_cam.py",
        "tf.nn.softmax(scores)",
        "tf.nn.relu(scores)",
        "test_methods.py::test_a_row_equals_its_definition[score_cam]",
    ),
    Mutation(
        "relevance/linear_rules.py",
        "settings.epsilon)\n    return linear.a * linear.pull(share * linear.scale), kept",
        "settings.epsilon)\n    return linear.a * linear.pull(share), kept",
        "test_relevance.py::test_a_residual_network_equals_loops[epsilon-epsilon]",
    ),
    Mutation(
        "relevance/linear_rules.py",
        "of_same = s * tf.where(s >= 0, share_up, share_down)",
        "of_same = s * share_up",
        "test_relevance.py::test_a_residual_network_equals_loops[gamma-alpha2_beta1]",
    ),
    Mutation(
        "relevance/blocks.py",
        "            return scale_of(op, values, graph)\n        signal",
        "            return values\n        signal",
        "test_relevance.py::test_a_residual_network_equals_loops[epsilon-epsilon]",
    ),
    Mutation(
        "relevance/blocks.py",
        "return tensor if one_is_mean else None",
        "return None",
        "test_relevance.py::test_a_normalization_divides_by_a_constant",
    ),
    Mutation(
        "relevance/operations.py",
        "if len(inputs) != 2 or len(gates) != 1:",
        "if len(inputs) != 2:",
        "test_relevance.py::test_an_operation_without_a_rule_is_refused_by_name[<lambda>-Mul0]",
    ),
    Mutation(
        "relevance/multipliers.py",
        "slope = y / tf.where(near, tf.ones_like(x), x)",
        "slope = tf.ones_like(x)",
        "test_relevance.py::test_transformer_lrp_passes_f_of_z_over_z[elu]",
    ),
    Mutation(
        "relevance/multipliers.py",
        "ends = [self._middle(tensor) for tensor in op.inputs]",
        "ends = list(op.inputs)",
        "test_relevance.py::test_deep_lift_is_complete_for_any_activation[silu]",
    ),
    Mutation(
        "relevance/attention.py",
        "total = (weights @ total + total) / 2 if residual else weights @ total",
        "total = weights @ total",
        "test_attention.py::test_formulas[keras-mean-rollout]",
    ),
    Mutation(
        "relevance/attention.py",
        "[*(replay(graph, outputs[-1], each, target) for each in outputs[:-1]), target]",
        "[target for each in outputs]",
        "test_attention.py::test_formulas[keras-class token-legrad]",
    ),
    Mutation(
        "relevance/attention.py",
        "read = tf.cast(tf.reduce_any(slope != 0, axes), total.dtype)",
        "read = tf.ones_like(total[:, :, 0])",
        "test_attention.py::test_formulas[hand-class token-rollout]",
    ),
    Mutation(
        "relevance/multipliers.py",
        "return [(op.inputs[i], share / 2) for i, share in shares]",
        "return [(op.inputs[i], share) for i, share in shares]",
        "test_attention.py::test_transformer_lrp_through_attention_equals_gradients_of_its_own_network",
    ),
]
