"""Cut clip.mp4 from its source: python cut.py vtest.avi clip.mp4"""

import sys

import cv2

# Every other frame of 14 seconds of the source, which has 10 frames per second.
FRAMES = range(500, 640, 2)
FPS = 5
SIZE = (672, 504)


def cut(source: str, target: str) -> None:
    capture = cv2.VideoCapture(source, cv2.CAP_FFMPEG)
    writer = cv2.VideoWriter(target, cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), FPS, SIZE)
    for index in range(FRAMES.stop):
        decoded, frame = capture.read()
        if not decoded:
            sys.exit(f"{source} has {index} frames; {FRAMES.stop} are needed")
        if index in FRAMES:
            writer.write(cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA))
    writer.release()


if __name__ == "__main__":
    cut(*sys.argv[1:])
