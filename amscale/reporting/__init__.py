"""What users see: tables and progress on a terminal, figures, and the report of a sweep.

terminal, progress, plan_table, estimates_table
    text on a terminal
fit_data, report_data
    what figures and the report are made from: a fit; a sweep's folder
chart, axes, palette
    figures as plain data
figures
    from that data to charts, one module a subject; the figures of a fit by name
static, interactive
    charts as pictures by matplotlib, and for Plotly on the page
conclusion, page_tables, reproduction
    the text of the report
page
    the report: one HTML page, and its figures as files
"""
