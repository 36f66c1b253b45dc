"""check_events.py RUN_FOLDER EPOCHS SCORED_EPOCH...: TensorBoard reads from a run's event files what metrics.jsonl says, once each."""
import io, json, os, sys
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

folder, epochs, *scored = sys.argv[1], *map(int, sys.argv[2:])
metrics = [json.loads(line) for line in open(os.path.join(folder, "metrics.jsonl"))]
assert [m["epoch"] for m in metrics] == list(range(1, epochs + 1)), metrics
events = EventAccumulator(folder, size_guidance={"scalars": 0, "images": 0})
events.Reload()
tags = {"loss/d": "d_loss", "loss/g": "g_loss", "probability/d_real": "d_real", "probability/d_fake": "d_fake",
        "samples/variety": "variety", "speed/steps_per_second": "steps_per_second"}
tags["score/frechet_distance"] = "frechet_distance"
assert set(events.Tags()["scalars"]) == set(tags), events.Tags()
assert [m["epoch"] for m in metrics if "frechet_distance" in m] == scored, metrics
for tag, key in tags.items():
    seen = [(e.step, e.value) for e in events.Scalars(tag)]
    expected = [(m["step"], m[key]) for m in metrics if key in m]
    assert [s for s, _ in seen] == [s for s, _ in expected], (tag, seen, expected)
    assert all(abs(a - b) <= 1e-6 * abs(b) for (_, a), (_, b) in zip(seen, expected)), (tag, seen, expected)
images = events.Images("samples")
assert [i.step for i in images] == [m["step"] for m in metrics]
for image, m in zip(images, metrics):
    drawn = Image.open(io.BytesIO(image.encoded_image_string))
    with open(os.path.join(folder, "samples", f"epoch-{m['epoch']:03}.png"), "rb") as f:
        assert f.read() == image.encoded_image_string
    assert drawn.size == (112, 112) == (image.width, image.height) and drawn.mode == "L"
animation = Image.open(os.path.join(folder, "samples", "samples.png"))
assert animation.n_frames == epochs and animation.size == (112, 112), animation.n_frames
with open(os.path.join(folder, "losses.svg")) as f:
    svg = f.read()
assert svg.startswith("<svg") and svg.count("<polyline") >= 2 and all(w in svg for w in ("epoch", "discriminator", "generator"))
