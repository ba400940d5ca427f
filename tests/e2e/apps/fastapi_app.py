"""A FastAPI service under uvicorn on a free port of the loopback; prints READY and the port."""
import socket

import fastapi
import pydantic
import uvicorn

app = fastapi.FastAPI()
orders = {}


class Order(pydantic.BaseModel):
    customer: str
    items: list[str]
    total: float


@app.get("/orders/{number}")
async def read_order(number: int):
    return orders[number]


@app.put("/orders/{number}")
def write_order(number: int, order: Order):  # no coroutine: runs in the pool of threads
    orders[number] = order
    return {"orders": len(orders)}


class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print("READY", sockets[0].getsockname()[1], flush=True)


if __name__ == "__main__":
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    Server(uvicorn.Config(app, log_level="warning")).run([listener])
