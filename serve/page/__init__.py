"""The page at `/`: static files that use the HTTP interface as any other client does, and no other host."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from starlette.staticfiles import StaticFiles

FOLDER = Path(__file__).parent
OPEN_PATHS = ("/", "/page/")
POLICY = "default-src 'self'; img-src 'self' data:; frame-ancestors 'self'; base-uri 'none'"


def add_page(app: FastAPI) -> None:
    """Serve it: the document at `/`, its styles and scripts below `/page/`."""

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(FOLDER / "index.html", headers={"Content-Security-Policy": POLICY})

    app.mount("/page", StaticFiles(directory=FOLDER / "assets"), name="page")
