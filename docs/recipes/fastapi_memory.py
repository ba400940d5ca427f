"""Two endpoints for any FastAPI application: remember the memory of now, and say what has grown since.

    app.include_router(fastapi_memory.router)

They are no coroutines: FastAPI runs them in its pool of threads, and other requests go on but for the pause."""
import os
import tempfile

import fastapi
from fastapi.responses import PlainTextResponse

import census

router = fastapi.APIRouter()
folder = tempfile.TemporaryDirectory(prefix="memory.")


def path(name):
    return os.path.join(folder.name, name)


@router.post("/memory/base")
def set_base():
    census.take_snapshot(path("base.jsonl"))
    return {"base": path("base.jsonl")}


@router.get("/memory/growth", response_class=PlainTextResponse)
def get_growth(top: int = 10, by: str = "line"):
    return census.compare(path("base.jsonl"), census.take_snapshot(path("now.jsonl")), by, top)
