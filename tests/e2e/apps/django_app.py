"""A Django project in one file, with models in SQLite in memory and its runserver's threaded WSGI server."""
import sys

import django
from django.conf import settings

settings.configure(DEBUG=True, SECRET_KEY="test", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], USE_TZ=True,
                   INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
                   DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3",
                                          "NAME": "file:orders?mode=memory&cache=shared"}},
                   TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}])
django.setup()

from django.contrib.auth.models import User  # noqa: E402 (models need the settings)
from django.core.management import call_command  # noqa: E402
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.template import engines  # noqa: E402
from django.urls import path  # noqa: E402

PAGE = engines["django"].from_string("<ul>{% for user in users %}<li>{{ user.username }}: {{ user.email }}</li>{% endfor %}</ul>")


def show_users(request):
    return HttpResponse(PAGE.render({"users": User.objects.all()}))


def add_user(request, number):
    User.objects.create(username=f"user{number}", email=f"user{number}@example.org")
    return HttpResponse("ok")


urlpatterns = [path("users", show_users), path("add/<int:number>", add_user)]


class QuietHandler(WSGIRequestHandler):
    def log_message(self, *args):
        pass


if __name__ == "__main__":
    call_command("migrate", verbosity=0)
    server = ThreadedWSGIServer(("127.0.0.1", 0), QuietHandler)
    server.set_app(get_wsgi_application())
    print("READY", server.server_port, flush=True)
    sys.exit(server.serve_forever())
