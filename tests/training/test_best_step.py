"""The best step, and patience across a restart."""

from sage_jax.training.best_step import BestStep


def test_patience_counts_evaluations_without_a_lower_loss_across_restarts():
    best = BestStep(patience=2)
    assert best.to_dict() is None and not best.exhausted
    assert best.add(10, 5.0) and not best.add(20, 5.0) and best.add(30, 4.0) and not best.add(40, 6.0)
    assert not best.exhausted
    resumed = BestStep(2, best.to_dict())
    assert not resumed.add(50, 4.5) and resumed.exhausted and (resumed.step, resumed.loss) == (30, 4.0)
    assert not BestStep(0, resumed.to_dict()).exhausted
