"""The stub of FCM that stamps what it accepts with the demo's time, as the mailbox does.

python -m scheduler_project.demo.devices --port 8026 --log sent.ndjson --credentials service-account.json
"""

from scheduler_project.demo.mailbox import OnTestClock
from stubs.fcm import FcmStub
from stubs.server import main


class Devices(OnTestClock, FcmStub):
    pass


if __name__ == "__main__":
    main(Devices)
