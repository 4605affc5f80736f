"""The library of the benchmark of ingest is what it says."""

from pathlib import Path

from benchmarks.ingest import CHUNKS_PER_CLIP, write_clips
from kamera_agent.vision.fingerprint import fingerprint_frames
from kamera_agent.vision.sampling import sample_groups


def test_every_clip_has_chunks_of_its_own(tmp_path: Path) -> None:
    write_clips(tmp_path, 3)
    clips = [[*sample_groups(path)] for path in sorted(tmp_path.iterdir())]
    assert [len(groups) for groups in clips] == [CHUNKS_PER_CLIP] * 3
    digests = {fingerprint_frames(group.pixels, ()) for groups in clips for group in groups}
    assert len(digests) == 3 * CHUNKS_PER_CLIP
