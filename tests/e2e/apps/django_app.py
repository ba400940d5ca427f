"""Django in one file: a view that keeps rendered pages, served by wsgiref. Prints READY and its port."""
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.template import engines
from django.urls import path

settings.configure(
    DEBUG=False,
    SECRET_KEY="test",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"],
)
django.setup()
KEPT = []


def keep(request, word):
    template = engines["django"].from_string("<p>{{ word }} {% for i in numbers %}{{ i }} {% endfor %}</p>")
    KEPT.append(template.render({"word": word, "numbers": range(200)}))
    return HttpResponse("%d kept" % len(KEPT))


urlpatterns = [path("keep/<str:word>", keep)]


class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


server = make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=Quiet)
print("READY", server.server_port, flush=True)
sys.stdout.flush()
server.serve_forever()
