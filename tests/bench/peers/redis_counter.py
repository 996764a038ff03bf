"""What many teams write: FastAPI that looks a key up and counts the call with redis INCR. Nothing durable.

redis_counter.py PORT REDIS_PORT CREDENTIALS    CREDENTIALS: a JSON file of {client id: secret}
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Header, HTTPException
from redis.asyncio import Redis


def application(redis_port: int, secrets: dict[str, str]) -> FastAPI:
    app = FastAPI()
    redis = Redis(host="127.0.0.1", port=redis_port)

    @app.get("/authorize/{service}")
    async def authorize(
        service: str,
        client_id: str = Header(alias="X-NCP-APIGW-API-KEY-ID"),
        secret: str = Header(alias="X-NCP-APIGW-API-KEY"),
    ) -> dict[str, int]:
        if secrets.get(client_id) != secret:
            raise HTTPException(401)
        return {"used": await redis.incr(f"{client_id}:{service}")}

    return app


def main() -> None:
    port, redis_port, credentials = sys.argv[1:]
    app = application(int(redis_port), json.loads(Path(credentials).read_text()))
    uvicorn.run(app, host="127.0.0.1", port=int(port), loop="uvloop", http="httptools", access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
