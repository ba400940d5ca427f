"""A FastAPI service under uvicorn that leaks, and that can say so in two ways: by tracemalloc inside, and by the
endpoints of docs/recipes/fastapi_memory.py. Prints READY and the port."""
import gc
import socket
import tracemalloc

import fastapi
import uvicorn

import fastapi_memory

tracemalloc.start(25)
app = fastapi.FastAPI()
app.include_router(fastapi_memory.router)
sessions = []
snapshots = {}


@app.get("/some/operation")
async def some_operation():
    sessions.append("session %d " % len(sessions) * 500)
    return {"sessions": len(sessions)}


@app.post("/inside/base")
async def inside_base():
    gc.collect()
    snapshots["base"] = tracemalloc.take_snapshot()
    return {}


@app.get("/inside/growth")
async def inside_growth():
    gc.collect()
    diff = tracemalloc.take_snapshot().compare_to(snapshots["base"], "lineno")
    return [str(stat) for stat in diff[:10]]


class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("READY", sockets[0].getsockname()[1], flush=True)


if __name__ == "__main__":
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    Server(uvicorn.Config(app, log_level="warning")).run([listener])
