"""A fresh machine as the site sees it: the user data that it was started with, and a key that openssl made."""

import json
import subprocess
from pathlib import Path
from urllib.parse import urlsplit


class FreshMachine:
    """Keeps its key in `folder`. `path` is where it enrols on the site, `invitation` the header that it comes with."""

    def __init__(self, user_data: str, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.key = folder / "key.pem"
        self.user_data = user_data
        head, body = user_data.split("\n", 1)
        assert head == "#cloud-config"
        self.config = json.loads(body)
        self.files = {file["path"]: file["content"] for file in self.config["write_files"]}
        self.invitation = self.files["/etc/buttcloud/invitation"].strip().removeprefix("Authorization: ")
        url = self.files["/etc/buttcloud/hub.env"].splitlines()[0].removeprefix("URL=").strip("'")
        self.path = urlsplit(url).path
        self.openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(self.key))

    def openssl(self, *args: str, stdin: str = "") -> str:
        return subprocess.run(["openssl", *args], input=stdin, check=True, capture_output=True, text=True).stdout

    def request(self, subject: str = "/CN=hub", *extensions: str) -> str:
        """A certificate request for its key."""
        more = [word for extension in extensions for word in ("-addext", extension)]
        return self.openssl("req", "-new", "-key", str(self.key), "-subj", subject, *more)

    def keep(self, answer: str) -> Path:
        """The certificate of the answer, in a file."""
        certificate = self.folder / "cert.pem"
        certificate.write_text(answer.split("\n", 1)[1])
        return certificate
