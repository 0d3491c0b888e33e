//! The graph in the language of Graphviz: `stanza network graph --format dot | dot -Tpng`.

use std::fmt::Write as _;

use stanza_engine::NetworkGraph;
use stanza_spec::NetworkMode;

use super::{addresses, kind, places, published, real, subnets, traits};

/// A text in double quotes.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// The graph.
pub(crate) fn dot(graph: &NetworkGraph) -> String {
    let mut text = String::from(
        "graph networks {\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n  edge [fontname=\"sans-serif\", fontsize=10];\n",
    );
    let _ = writeln!(text, "  host [shape=house, label={}];", quote(&graph.host));
    for (index, entry) in real(graph).enumerate() {
        let mut lines = vec![entry.network.name.clone(), subnets(entry)];
        lines.extend(traits(entry));
        let _ = writeln!(text, "  n{index} [shape=ellipse, label={}];", quote(&lines.join("\n")));
    }
    for (index, container) in graph.containers.iter().enumerate() {
        let mut label = container.name.clone();
        if let Some(kind) = kind(graph, container) {
            label = format!("{label}\n{kind}");
        }
        let style = if container.running { "solid" } else { "dashed" };
        let _ = writeln!(text, "  c{index} [shape=box, style={style}, label={}];", quote(&label));
        for (network, endpoint) in places(graph, container) {
            let label = format!("{}\n{}", endpoint.interface, addresses(endpoint));
            let _ =
                writeln!(text, "  c{index} -- n{network} [style={style}, label={}];", quote(label.trim()));
        }
        let shared =
            graph.containers.iter().position(|other| Some(&other.id) == container.shares_with.as_ref());
        if let Some(owner) = shared {
            let _ = writeln!(text, "  c{index} -- c{owner} [style=dotted];");
        }
        let ports = published(container);
        if !ports.is_empty() || container.mode == NetworkMode::Host {
            let label = quote(&ports.join("\n"));
            let _ = writeln!(text, "  host -- c{index} [color=gray40, label={label}];");
        }
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::dot;

    #[test]
    fn every_node_and_line_is_there() {
        let text = dot(&sample());
        for line in [
            "  host [shape=house, label=\"tower\"];",
            "  n0 [shape=ellipse, label=\"back\\n10.8.0.0/24\\nbridge br-back\\ninternal\"];",
            "  c0 [shape=box, style=dashed, label=\"db\"];",
            "  c2 -- n1 [style=solid, label=\"eth0\\n10.7.0.2\"];",
            "  c1 -- c2 [style=dotted];",
            "  host -- c2 [color=gray40, label=\"127.0.0.1:8080->80/tcp\"];",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
    }
}
