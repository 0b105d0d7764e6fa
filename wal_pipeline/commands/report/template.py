"""The report page's template. Everything is in the page: it loads nothing."""

from typing import Final

PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ status.facts.cluster }}: WAL archive, {{ days }} days</title>
<style>
:root { --ink: #0f172a; --soft: #475569; --line: #e2e8f0; --ok: #16a34a; --warning: #d97706; --critical: #dc2626; }
* { box-sizing: border-box; }
body { margin: 0; background: #f8fafc; color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; margin: 0; }
h2 { font-size: 17px; margin: 0 0 12px; }
header p { color: var(--soft); margin: 4px 0 24px; }
section { background: #fff; border: 1px solid var(--line); border-radius: 10px; padding: 20px 24px; margin: 16px 0; }
.badge { display: inline-block; color: #fff; border-radius: 6px; padding: 1px 10px; font-size: 14px;
  vertical-align: 4px; margin-left: 8px; text-transform: uppercase; }
.ok { background: var(--ok); } .warning { background: var(--warning); } .critical { background: var(--critical); }
.unknown { background: #94a3b8; } .info { background: #0284c7; }
.cards { display: grid; grid-template-columns: repeat(5, 1fr); gap: 12px; margin: 16px 0; }
.card { background: #fff; border: 1px solid var(--line); border-top: 4px solid #94a3b8; border-radius: 10px;
  padding: 12px 14px; }
.card.ok { background: #fff; border-top-color: var(--ok); }
.card.warning { background: #fff; border-top-color: var(--warning); }
.card.critical { background: #fff; border-top-color: var(--critical); } .card.unknown { background: #fff; }
.card b { display: block; font-size: 15px; line-height: 1.3; margin: 4px 0; } .card small { color: var(--soft); }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: 6px 12px 6px 0; vertical-align: top; }
th { color: var(--soft); font-weight: 500; font-size: 13px; border-bottom: 1px solid var(--line); }
td { border-bottom: 1px solid #f1f5f9; } .number { text-align: right; font-variant-numeric: tabular-nums; }
svg { max-width: 100%; height: auto; display: block; }
.alarm { background: #fef2f2; border-color: #fecaca; color: #991b1b; font-weight: 600; }
.note { color: var(--soft); font-size: 13px; margin: 8px 0 0; } code { font-size: 13px; }
@media (max-width: 760px) { .cards { grid-template-columns: repeat(2, 1fr); } }
@media print { body { background: #fff; } section { break-inside: avoid; } }
</style>
</head>
<body><main>
<header>
<h1>{{ status.facts.cluster }}<span class="badge {{ status.verdict.value }}">{{ status.verdict.value }}</span></h1>
<p>WAL archive, {{ begin_at|moment }} to {{ status.facts.at|moment }}, system identifier
{{ status.facts.windows.system_identifier or "not known yet" }}</p>
</header>
{% if not status.can_recover %}
<section class="alarm">No recovery is possible: no base backup can be restored from any store.
Type <code>wal-pipeline backup</code> to take one.</section>
{% endif %}
{% if status.facts.pause %}<section class="alarm">{{ status.facts.pause.describe() }}</section>{% endif %}
<div class="cards">
{% for metric in status.metrics %}
<div class="card {{ metric.verdict.value }}"><small>{{ metric.name }}</small><b>{{ metric.shown }}</b>
<small>goal: {{ metric.goal }}</small></div>
{% endfor %}
</div>
<section><h2>What can be recovered</h2>
{{ windows_svg|safe }}
<table><tr><th>store</th><th>from</th><th>to the last commit</th><th>LSN</th><th class="number">timeline</th>
<th class="number">segments</th><th class="number">base backups</th><th class="number">open gaps</th></tr>
{% for row in windows %}
<tr><td>{{ row.store }}</td>
{% if row.window %}<td>{{ row.window.earliest_at|moment }}</td>
<td>{{ row.window.latest_commit_at_least|moment }}{{ "" if row.window.commit_times_known else " or later" }}</td>
<td>{{ row.window.latest_lsn }}</td><td class="number">{{ row.window.timeline }}</td>
<td class="number">{{ row.window.segments }}</td><td class="number">{{ row.window.backup_ids|length }}</td>
{% else %}<td colspan="6">no recovery from here</td>{% endif %}
<td class="number">{{ row.gaps }}</td></tr>
{% endfor %}
</table>
{% if status.point.rto_seconds %}<p class="note">A restore took, by the last drill:
{% for store, seconds in status.point.rto_seconds.items() %}
{{ store }} {{ seconds|length_of }}{{ ", " if not loop.last }}{% endfor %}.</p>{% endif %}
</section>
{% if status.problems %}
<section><h2>What needs a person now</h2><table>
{% for problem in status.problems %}
<tr><td><span class="badge {{ problem.severity.value }}" style="margin: 0">{{ problem.severity.value }}</span></td>
<td><b>{{ problem.kind.value }}</b> {{ problem.subject }}</td><td>{{ problem.message }}</td>
<td>{{ "acknowledged" if problem.acknowledged else (problem.since_at|moment if problem.since_at else "") }}</td></tr>
{% endfor %}</table></section>
{% endif %}
<section><h2>Lag: from the spool to verified, 19 of 20 copies</h2>{{ lag_svg|safe }}
<p class="note">The dashed line is the goal, {{ lag_goal_seconds|length_of }}, where it is in the picture.</p></section>
<section><h2>Stored WAL</h2>{{ storage_svg|safe }}
<p class="note">What is still stored, by the day on which it came.</p></section>
<section><h2>WAL a day</h2>{{ wal_svg|safe }}</section>
<section><h2>Compression</h2><table><tr><th>codec</th><th class="number">files</th><th class="number">WAL</th>
<th class="number">stored</th><th class="number">ratio</th><th class="number">saved</th>
<th class="number">speed of a thread</th></tr>
{% for row in figures.compression %}
<tr><td>{{ row.codec }}</td><td class="number">{{ row.files }}</td><td class="number">{{ row.size_bytes|size }}</td>
<td class="number">{{ row.stored_bytes|size }}</td><td class="number">{{ "%.1f"|format(row.ratio) }}</td>
<td class="number">{{ "%.0f"|format(100 - 100 * row.stored_bytes / (row.size_bytes or 1)) }} %</td>
<td class="number">{{ row.speed|size ~ "/s" if row.speed else "-" }}</td></tr>
{% else %}<tr><td colspan="7">nothing was archived</td></tr>{% endfor %}</table></section>
<section><h2>Failures</h2>{{ failures_svg|safe }}
<table><tr><th>store</th><th class="number">tries</th><th class="number">failed</th>
<th class="number">succeeded</th></tr>
{% for row in figures.failures %}
<tr><td>{{ row.store }}</td><td class="number">{{ row.attempted }}</td><td class="number">{{ row.failed }}</td>
<td class="number">{{ "-" if row.success_rate is none else "%.2f %%"|format(100 * row.success_rate) }}</td></tr>
{% endfor %}</table>
<p class="note">A failed try loses nothing: the file stays in the spool and is tried again.</p></section>
<section><h2>Alerts of the period</h2><table>
<tr><th>opened</th><th>what</th><th>message</th><th>lasted</th></tr>
{% for alert in alerts %}
<tr><td>{{ alert.opened_at|moment }}</td><td><b>{{ alert.kind.value }}</b> {{ alert.subject }}</td>
<td>{{ alert.message }}</td>
<td>{{ (alert.resolved_at - alert.opened_at)|length_of if alert.resolved_at else "open" }}</td></tr>
{% else %}<tr><td colspan="4">none</td></tr>{% endfor %}</table>
{% if more_alerts %}<p class="note">and {{ more_alerts }} earlier ones</p>{% endif %}</section>
<section><h2>Base backups and drills</h2><table>
<tr><th>finished</th><th>kind</th><th class="number">size</th><th class="number">stored</th><th>on</th></tr>
{% for backup in backups %}
<tr><td>{{ backup.finished_at|moment }}</td><td>{{ backup.kind.value }}</td>
<td class="number">{{ backup.size_bytes|size }}</td><td class="number">{{ backup.stored_size_bytes|size }}</td>
<td>{{ status.facts.windows.holders[backup.backup_id]|sort|join(", ") }}</td></tr>
{% else %}<tr><td colspan="5">no base backup</td></tr>{% endfor %}</table>
<table style="margin-top: 16px"><tr><th>drill ended</th><th>store</th><th>target</th><th>result</th><th>took</th></tr>
{% for drill in drills %}
<tr><td>{{ drill.finished_at|moment }}</td><td>{{ drill.store }}</td><td>{{ drill.target }}</td>
<td>{{ "passed" if drill.ok else "FAILED" }}</td><td>{{ (drill.finished_at - drill.started_at)|length_of }}</td></tr>
{% else %}<tr><td colspan="5">no drill in the period</td></tr>{% endfor %}</table></section>
<section><h2>Cost</h2><table><tr><th>store</th><th class="number">stored</th><th class="number">storage</th>
<th class="number">requests</th><th class="number">a month</th><th class="number">one full restore</th></tr>
{% for store, one in cost.stores.items() %}
<tr><td>{{ store }}</td><td class="number">{{ "%.2f"|format(one.stored_bytes / 10**9) }} GB</td>
<td class="number">${{ one.storage_usd|cents }}</td><td class="number">${{ one.requests_usd|cents }}</td>
<td class="number"><b>${{ one.month_usd|cents }}</b></td><td class="number">${{ one.restore_usd|cents }}</td></tr>
{% endfor %}
<tr><td>together</td><td></td><td class="number">${{ cost.storage_usd|cents }}</td><td></td>
<td class="number"><b>${{ cost.month_usd|cents }}</b></td><td></td></tr></table>
<p class="note">Storage as it is now for a month, requests of the last 30 days, at the prices of the
settings.</p></section>
</main></body></html>
"""
