"""The dashboard: what has become of messages over time, how late they were, why some failed, and how the service is.

Rooms: views → files, signs → charts.
"""

from frontend.pages.dashboard.views import dashboard, dashboard_csv, dashboard_health

__all__ = ["dashboard", "dashboard_csv", "dashboard_health"]
