from __future__ import annotations

from broker.telemetry.merged import merge

A = """# HELP roomcast_rooms Open rooms.
# TYPE roomcast_rooms gauge
roomcast_rooms 3
# HELP roomcast_sent_total Frames, by lane.
# TYPE roomcast_sent_total counter
roomcast_sent_total{lane="chat",why="a {b} c"} 7
"""
B = A.replace(" 3\n", " 4\n").replace(" 7\n", " 9\n")


def test_series_of_each_node_stand_side_by_side_under_one_heading() -> None:
    assert merge({"n-1": A, 'n"2': B}) == (
        "# HELP roomcast_rooms Open rooms.\n# TYPE roomcast_rooms gauge\n"
        'roomcast_rooms{node="n-1"} 3\nroomcast_rooms{node="n\\"2"} 4\n'
        "# HELP roomcast_sent_total Frames, by lane.\n# TYPE roomcast_sent_total counter\n"
        'roomcast_sent_total{node="n-1",lane="chat",why="a {b} c"} 7\n'
        'roomcast_sent_total{node="n\\"2",lane="chat",why="a {b} c"} 9\n'
    )


def test_metrics_of_the_supervisor_come_last() -> None:
    page = merge({"n-1": A}, [("roomcast_node_up", "Whether it serves.", "gauge", {"n-1": 1, "n-2": 0})])
    assert page.endswith(
        "# HELP roomcast_node_up Whether it serves.\n# TYPE roomcast_node_up gauge\n"
        'roomcast_node_up{node="n-1"} 1\nroomcast_node_up{node="n-2"} 0\n'
    )
    assert merge({}) == ""
