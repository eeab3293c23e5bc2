//! The report as a page: one file, no script, light and dark by the reader's setting.

use std::fmt::Write;

/// An estimate with its interval.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--line:#c9ced6;--mark:#0b63c5}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--paper:#14171b;--line:#3a414b;--mark:#6db3ff}}\
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:52rem;\
margin:2rem auto;padding:0 1rem}table{border-collapse:collapse;width:100%}\
th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid var(--line)}\
th:first-child,td:first-child{text-align:left}svg{width:100%;height:auto}\
text{fill:var(--ink);font:13px system-ui,sans-serif}.axis{stroke:var(--line)}\
.bar{stroke:var(--mark);stroke-width:3}.dot{fill:var(--mark)}";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The page.
pub(super) fn page(title: &str, note: &str, bars: &[Bar]) -> String {
    let (title, note) = (escaped(title), escaped(note));
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style><h1>{title}</h1><p>{note}</p>{}\
         <table><thead><tr><th scope=\"col\">estimate</th><th scope=\"col\">value</th>\
         <th scope=\"col\">from</th><th scope=\"col\">to</th></tr></thead><tbody>",
        plot(&title, bars)
    );
    for bar in bars {
        _ = write!(
            page,
            "<tr><td>{}</td><td>{:.6}</td><td>{:.6}</td><td>{:.6}</td></tr>",
            escaped(&bar.name),
            bar.value,
            bar.low,
            bar.high
        );
    }
    page + "</tbody></table></html>\n"
}

/// Points with their intervals, one a line.
fn plot(title: &str, bars: &[Bar]) -> String {
    let finite = || bars.iter().flat_map(|bar| [bar.low, bar.high, bar.value]).filter(|x| x.is_finite());
    let low = finite().fold(0.0, f64::min);
    let high = finite().fold(0.0, f64::max).max(low + 1e-12);
    let x = |value: f64| 130.0 + 540.0 * (value.clamp(low, high) - low) / (high - low);
    let height = 40 + 30 * bars.len();
    let mut svg = format!("<svg viewBox=\"0 0 700 {height}\" role=\"img\" aria-label=\"{title}\">");
    for step in 0..=4 {
        let value = low + (high - low) * f64::from(step) / 4.0;
        let (at, end) = (x(value), height - 24);
        _ = write!(
            svg,
            "<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"4\" y2=\"{end}\"/>\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{value:.4}</text>",
            height - 6
        );
    }
    for (n, bar) in bars.iter().enumerate() {
        let y = 22 + 30 * n;
        _ = write!(
            svg,
            "<text x=\"4\" y=\"{}\">{}</text><line class=\"bar\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y}\" y2=\"{y}\"/>\
             <circle class=\"dot\" cx=\"{:.1}\" cy=\"{y}\" r=\"5\"/>",
            y + 4,
            escaped(&bar.name),
            x(bar.low),
            x(bar.high),
            x(bar.value)
        );
    }
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_from_outside_is_text() {
        let bars = [Bar { name: "<b>".into(), value: 0.5, low: f64::NEG_INFINITY, high: 1.0 }];
        let page = page("a & b", "", &bars);
        assert!(page.contains("&lt;b&gt;") && !page.contains("<b>") && page.contains("a &amp; b"));
        assert!(!page.contains("NaN") && page.contains("<svg"));
    }
}
