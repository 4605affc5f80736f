"""One turn of an agent in a process of its own: python turn.py FOLDER IMAGE QUESTION. Prints what it said and computed.

What lasts is in the folder: the store, the pixels, and the checkpoint.
"""

import base64
import json
import sys
from pathlib import Path

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver

from kamera_agent import Kamera
from kamera_agent.agent import ChatKamera, ScreenWindow


def take_turn(folder: Path, image: Path, question: str) -> dict[str, object]:
    data = base64.b64encode(image.read_bytes()).decode()
    block = {"type": "image", "base64": data, "mime_type": "image/png"}
    with (
        Kamera.pocket(store=folder / "store", rank=50) as kamera,
        SqliteSaver.from_conn_string(str(folder / "checkpoints.db")) as saver,
    ):
        window = ScreenWindow(keep_last=2, folder=folder / "pixels")
        agent = create_agent(ChatKamera(kamera=kamera, max_tokens=4), [], middleware=[window], checkpointer=saver)
        asked = {"messages": [HumanMessage([block, {"type": "text", "text": question}])]}
        messages = agent.invoke(asked, {"configurable": {"thread_id": "one"}})["messages"]
        return {"said": messages[-1].text, **messages[-1].response_metadata["kamera"]["origins"]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(take_turn(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])))
