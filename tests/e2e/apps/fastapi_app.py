"""A FastAPI endpoint that keeps what it is given."""
from fastapi import FastAPI

app = FastAPI()
KEPT = []


@app.get("/keep/{word}")
async def keep(word: str):
    KEPT.append({"word": word, "page": word * 300})
    return {"kept": len(KEPT)}
