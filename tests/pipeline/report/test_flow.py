import xml.etree.ElementTree as ElementTree

from pipeline.report.flow import Flow, FlowArm, FlowStep, flow_svg

FLOW = Flow(
    steps=[
        FlowStep(title="Recordings", counts={"patients": 1234}, dropped={}),
        FlowStep(title="Windows", counts={"patients": 1200}, dropped={"flat <line>": 34, "rails": 2}),
    ],
    arms=[
        FlowArm(title=name, purpose="models learn from them", counts={"patients": n})
        for name, n in (("train", 800), ("test", 400))
    ],
)


def test_every_number_is_drawn_inside_the_picture_and_no_box_covers_another() -> None:
    drawing = ElementTree.fromstring(flow_svg(FLOW))
    words = [text.text for text in drawing.iter() if text.tag.endswith("text")]
    for told in ("1 234 patients", "1 200 patients", "34 flat <line>", "800 patients", "400 patients"):
        assert told in words
    assert words.count("left out") == 1
    _, _, width, height = map(float, drawing.attrib["viewBox"].split())
    boxes = [
        [float(box.attrib[name]) for name in ("x", "y", "width", "height")]
        for box in drawing.iter()
        if box.tag.endswith("rect")
    ]
    assert len(boxes) == 5
    for number, (x, y, w, h) in enumerate(boxes):
        assert x + w <= width
        assert y + h <= height
        for other_x, other_y, other_w, other_h in boxes[number + 1 :]:
            apart = x + w <= other_x or other_x + other_w <= x or y + h <= other_y or other_y + other_h <= y
            assert apart


def test_without_parts_the_way_ends_with_its_last_step() -> None:
    assert "train" not in flow_svg(Flow(steps=FLOW.steps, arms=[]))
