"""Makes of what Snowplow's tracker sent (snowplow.json) the JSON of enriched events (snowplow.ndjson).

The columns of an enriched event are filled with the tracker's fields of the same meaning, nothing is added; what
becomes of them in JSON is decided by Snowplow's own library: pip install snowplow-analytics-sdk==0.2.3
"""

import datetime
import json

from snowplow_analytics_sdk import event_transformer

FIELDS = [field[0] for field in event_transformer.ENRICHED_EVENT_FIELD_TYPES]


def time(ms: str) -> str:
    at = datetime.datetime.fromtimestamp(int(ms) // 1000, datetime.timezone.utc)
    return f"{at:%Y-%m-%d %H:%M:%S}.{int(ms) % 1000:03}"


def enriched(event: dict) -> dict:
    row = dict.fromkeys(FIELDS, "")
    row |= {
        "app_id": event["aid"],
        "platform": event["p"],
        "collector_tstamp": time(event["stm"]),
        "derived_tstamp": time(event["dtm"]),
        "dvce_created_tstamp": time(event["dtm"]),
        "dvce_sent_tstamp": time(event["stm"]),
        "event": {"pv": "page_view", "ue": "unstruct"}[event["e"]],
        "event_id": event["eid"],
        "name_tracker": event["tna"],
        "v_tracker": event["tv"],
        "domain_userid": event["duid"],
        "domain_sessionid": event["sid"],
        "domain_sessionidx": event["vid"],
        "page_url": event["url"],
        "page_title": event.get("page", ""),
        "br_lang": event["lang"],
        "contexts": event.get("co", ""),
        "unstruct_event": event.get("ue_pr", ""),
    }
    if "ue_pr" in event:
        schema = json.loads(event["ue_pr"])["data"]["schema"].removeprefix("iglu:")
        names = ("event_vendor", "event_name", "event_format", "event_version")
        row |= zip(names, schema.split("/"))
    told = event_transformer.transform("\t".join(row[field] for field in FIELDS))
    return {name: value for name, value in told.items() if value is not None}


with open("snowplow.json") as sent, open("snowplow.ndjson", "w") as out:
    for event in json.load(sent):
        print(json.dumps(enriched(event), separators=(",", ":")), file=out)
