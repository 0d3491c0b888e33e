//! The graph as a tree of text.

use stanza_engine::NetworkGraph;

use super::{addresses, kind, published, real, subnets, traits};

/// One line under a network: name, address, device, and what else is to be known.
fn line(name: &str, cells: &[String]) -> String {
    let cells: Vec<&str> = std::iter::once(name)
        .chain(cells.iter().map(String::as_str))
        .filter(|cell| !cell.is_empty())
        .collect();
    cells.join("  ")
}

/// A network and what is in it; then the containers that are in none.
pub(crate) fn text(graph: &NetworkGraph) -> String {
    let mut branches: Vec<(String, Vec<String>)> = Vec::new();
    for entry in real(graph) {
        let mut title = vec![subnets(entry)];
        title.extend(traits(entry));
        let leaves = entry.endpoints.iter().map(|one| {
            if !one.running {
                return line(&one.container_name, &["(not running)".to_owned()]);
            }
            let container = graph.containers.iter().find(|known| known.id == one.container);
            let mut cells = vec![addresses(one), one.interface.clone()];
            // The ports are told once, where the way out is.
            if one.default_route || container.is_some_and(|known| super::places(graph, known).len() == 1) {
                cells.extend(container.map(published).unwrap_or_default());
            }
            line(&one.container_name, &cells)
        });
        branches.push((line(&entry.network.name, &title), leaves.collect()));
    }
    let others = graph.containers.iter().filter_map(|container| {
        let mut cells = vec![kind(graph, container)?];
        if !container.running {
            cells.push("(not running)".to_owned());
        }
        cells.extend(published(container));
        Some(line(&container.name, &cells))
    });
    let others: Vec<String> = others.collect();
    if !others.is_empty() {
        branches.push(("in no network of their own".to_owned(), others));
    }
    let mut text = format!("{}\n", graph.host);
    for (index, (title, leaves)) in branches.iter().enumerate() {
        let last = index + 1 == branches.len();
        text.push_str(&format!("{} {title}\n", if last { "└─" } else { "├─" }));
        for (index, leaf) in leaves.iter().enumerate() {
            let stem = if last { "   " } else { "│  " };
            let twig = if index + 1 == leaves.len() { "└─" } else { "├─" };
            text.push_str(&format!("{stem}{twig} {leaf}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::sample;
    use super::text;

    #[test]
    fn the_tree_has_networks_containers_and_ports() {
        let mut graph = sample();
        graph.networks[1].endpoints[0].default_route = true;
        let expected = "\
tower
├─ back  10.8.0.0/24  bridge br-back  internal
│  ├─ db  (not running)
│  └─ web  10.7.0.2  eth1
├─ front  10.7.0.0/24  bridge br-front
│  └─ web  10.7.0.2  eth0  127.0.0.1:8080->80/tcp
└─ in no network of their own
   └─ side  the network of web
";
        assert_eq!(text(&graph), expected);
    }
}
