"""Runs become medians with their spread, side by side."""

from fastvla_ros.bench.summary import summarise, table


def sample(pair, run, **figures):
    return {"measurement": "images", "pair": pair, "run": run, "figures": figures}


def test_every_pair_has_the_median_and_the_spread_of_its_own_runs():
    summary = summarise(
        [
            sample("embedded", 0, p50_ms=1.0),
            sample("rclpy", 0, p50_ms=9.0),
            sample("embedded", 1, p50_ms=3.0),
            sample("embedded", 2, p50_ms=2.0),
        ]
    )
    assert summary["images"]["embedded"]["p50_ms"] == {"median": 2.0, "min": 1.0, "max": 3.0}
    assert summary["images"]["rclpy"]["p50_ms"]["median"] == 9.0


def test_the_table_has_a_column_per_pair_and_a_row_per_figure():
    lines = table(
        summarise(
            [
                sample("embedded", 0, lost=0, p50_ms=0.71),
                sample("embedded", 1, lost=2, p50_ms=0.71),
                sample("rclpy", 0, lost=7, p50_ms=5.26),
            ]
        )
    )
    assert lines[1].split() == ["images", "embedded", "rclpy"]
    assert lines[2].split() == ["lost", "1", "(0..2)", "7"]
    assert lines[3].split() == ["p50_ms", "0.71", "5.26"]
