//! `murre-report scale`: what a cluster of many connections needs, computed from the records. The numbers that are
//! assumed are options.

use clap::{Args, Parser};
use murre_record::Scenario;

use crate::figures::{grouped, rounded, short};
use crate::needs::Needs;
use crate::promises::{R5, R5_NODES};
use crate::records::kinds::kind;
use crate::records::{RecordPlace, Records, Run, is_ours};
use crate::tables::markdown::{link, table};
use crate::values;

/// Prints the nodes, NATS servers, network, database and storm recovery of clusters.
///
/// Every number is computed from a record, which is named, or is one of the options below.
#[derive(Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// Connections of each cluster
    #[arg(long, value_name = "N[,...]", value_delimiter = ',', default_values_t = [1_000_000, 10_000_000, 100_000_000])]
    conns: Vec<u64>,

    /// Cores of a node
    #[arg(long, default_value_t = 16.0)]
    cores: f64,

    /// Memory of a node for connections, in GB
    #[arg(long, default_value_t = 48.0)]
    memory_gb: f64,

    /// Connections of a node at most: so many were run on one
    #[arg(long, default_value_t = 2_000_000.0)]
    node_conns: f64,

    /// The part of a node's processor time that is used while nothing happens
    #[arg(long, default_value_t = 0.5)]
    busy: f64,

    /// Seconds between two heartbeats of a client
    #[arg(long, default_value_t = 30.0)]
    heartbeat: f64,

    /// Minutes for which a client stays connected
    #[arg(long, default_value_t = 30.0)]
    stay: f64,

    /// Subscribers of a channel
    #[arg(long, default_value_t = 1000.0)]
    subscribers: f64,

    /// Publications to a channel a minute, each of 128 B
    #[arg(long, default_value_t = 1.0)]
    publications: f64,
}

/// Those of the page: of every option its default.
impl Default for Arguments {
    fn default() -> Self {
        #[derive(Parser)]
        struct Alone {
            #[command(flatten)]
            arguments: Arguments,
        }
        Alone::parse_from(["scale"]).arguments
    }
}

/// Prints the tables.
pub(crate) fn run(arguments: &Arguments, records: &Records) {
    print!("{}", tables(arguments, records, "bench-results/"));
}

/// A number from a record.
struct Measured {
    what: &'static str,
    value: Option<f64>,
    unit: &'static str,
    place: Option<RecordPlace>,
}

impl Measured {
    /// A number of the newest run of ours that meets the needs and has it.
    fn of(
        records: &Records,
        (what, unit): (&'static str, &'static str),
        needs: &Needs,
        value: fn(&Run) -> Option<f64>,
    ) -> Measured {
        let runs = records.runs().filter(|(_, run)| is_ours(run) && needs.unmet(run).is_none());
        let runs = runs.filter_map(|(place, run)| Some((&run.started, place, value(run)?)));
        let newest = runs.max_by_key(|(started, place, _)| (*started, *place));
        let (place, value) = newest.map(|(_, place, value)| (place.clone(), value)).unzip();
        Measured { what, value, unit, place }
    }

    /// A figure of `scripts/bench-cluster`.
    fn checked(records: &Records, what: &'static str, unit: &'static str) -> Measured {
        let checks = records.of(kind!(Check)).filter(|(_, check)| check.check.starts_with(what));
        let newest = checks.max_by_key(|(line, _)| line.place.clone());
        let (place, value) =
            newest.map(|(line, check)| (line.place.clone(), check.measured)).unzip();
        Measured { what, value, unit, place }
    }

    fn cells(&self, up: &str) -> Vec<String> {
        let value = self.value.map_or("not measured yet".to_owned(), |value| {
            format!("{} {}", short(value), self.unit).trim_end().to_owned()
        });
        let place = self.place.as_ref().map_or(String::new(), |place| link(place, up));
        vec![self.what.to_owned(), value, place]
    }
}

/// What the records say, one connection of a user with one topic each.
struct Costs {
    bytes: Measured,
    heartbeat_us: Measured,
    connect_us: Measured,
    delivery_us: Measured,
    heartbeat_bytes: Measured,
    channel_bytes: Measured,
    nats_rate: Measured,
    session_us: Measured,
}

impl Costs {
    fn of(records: &Records) -> Costs {
        let r5 = Needs { conns: (100_000, u64::MAX), hold_seconds: 59.0, ..R5 };
        let fanout = Needs { scheduled: true, ..Needs::of(&[Scenario::Fanout], 100_000) };
        let of = |what, needs, value| Measured::of(records, what, needs, value);
        Costs {
            bytes: of(("memory for a connection, all in", "B"), &r5, values::total_bytes),
            heartbeat_us: of(("processor time for a heartbeat", "µs"), &r5, values::cpu_us),
            connect_us: of(
                ("processor time for a connect, its token and its join", "µs"),
                &r5,
                |run| values::connects_per_cpu_second(run).map(|rate| 1e6 / rate),
            ),
            delivery_us: of(
                ("processor time for a delivery of 128 B", "µs"),
                &fanout,
                values::cpu_us,
            ),
            heartbeat_bytes: of(
                ("bytes of a heartbeat and its answer, without TCP", "B"),
                &r5,
                |run| {
                    let hold = run.hold.as_ref()?;
                    Some((hold.bytes_in + hold.bytes_out) as f64 / hold.requests.max(1) as f64)
                },
            ),
            channel_bytes: Measured::checked(
                records,
                "memory of NATS for a channel with one subscriber",
                "B",
            ),
            nats_rate: Measured::checked(
                records,
                "publications of 128 B a second through one NATS server, three nodes, without history",
                "a second",
            ),
            session_us: of(
                ("processor time of PostgreSQL for a user that comes", "µs"),
                &R5_NODES,
                |run| {
                    let nodes = run.nodes.as_ref()?;
                    let postgres = nodes.processes.get("postgres")?;
                    Some(postgres.connect_cpu_seconds * 1e6 / nodes.users.max(1) as f64)
                },
            ),
        }
    }

    fn all(&self) -> [&Measured; 8] {
        let Costs { bytes, heartbeat_us, connect_us, delivery_us, heartbeat_bytes, .. } = self;
        let Costs { channel_bytes, nats_rate, session_us, .. } = self;
        [
            bytes,
            heartbeat_us,
            connect_us,
            delivery_us,
            heartbeat_bytes,
            channel_bytes,
            nats_rate,
            session_us,
        ]
    }
}

/// The needs of one cluster. `None` where a record is missing.
struct Cluster {
    by_memory: Option<f64>,
    by_conns: f64,
    by_cpu: Option<f64>,
    nodes: Option<f64>,
    network: Option<f64>,
    subscriptions: Option<f64>,
    nats_memory: Option<f64>,
    nats_messages: Option<f64>,
    nats_servers: Option<f64>,
    sessions: f64,
    database: Option<f64>,
    lost: Option<f64>,
    back: Option<f64>,
}

impl Cluster {
    fn of(conns: f64, arguments: &Arguments, costs: &Costs) -> Cluster {
        let Arguments {
            cores,
            memory_gb,
            node_conns,
            busy,
            heartbeat,
            stay,
            subscribers,
            publications,
            ..
        } = *arguments;
        let comes = conns / (stay * 60.0);
        let channels = conns / subscribers;
        let by_conns = conns / node_conns;
        let published = channels * publications / 60.0;
        let by_memory = costs.bytes.value.map(|bytes| conns * bytes / (memory_gb * 1e9));
        // A node's processor time for all that goes on, in cores.
        let cpu = || {
            let heartbeats = conns / heartbeat * costs.heartbeat_us.value?;
            let connects = comes * costs.connect_us.value?;
            let deliveries = published * subscribers * costs.delivery_us.value?;
            Some((heartbeats + connects + deliveries) / 1e6)
        };
        let by_cpu = cpu().map(|cpu| cpu / (cores * busy));
        // One node more, whose clients the others can take. A node alone is no cluster.
        let nodes = by_memory
            .zip(by_cpu)
            .map(|(memory, cpu)| (memory.max(cpu).max(by_conns).ceil() + 1.0).max(3.0));
        let network = costs.heartbeat_bytes.value.map(|bytes| {
            let heartbeats = conns / heartbeat * (bytes + 2.0 * PACKET_BYTES);
            let deliveries = published * subscribers * (DELIVERY_BYTES + PACKET_BYTES);
            (heartbeats + deliveries) * 8.0 / 1e9
        });
        let watching = nodes.map(|nodes| nodes.min(subscribers));
        let subscriptions = watching.map(|watching| channels * watching);
        let nats_messages = watching.map(|watching| published * (1.0 + watching));
        // Measured with three nodes, so with four messages for each publication.
        let capacity = costs.nats_rate.value.map(|rate| rate * 4.0 * busy);
        let servers = nats_messages.zip(capacity).map(|(needed, each)| (needed / each).ceil());
        let sessions = 2.0 * comes / CONNS_PER_USER;
        let lost = nodes.map(|nodes| conns / nodes);
        let back = || {
            let free = cores * (nodes? - 1.0) - cpu()?;
            Some(lost? * costs.connect_us.value? / 1e6 / free)
        };
        Cluster {
            by_memory,
            by_conns,
            by_cpu,
            nodes,
            network,
            subscriptions,
            nats_memory: subscriptions
                .zip(costs.channel_bytes.value)
                .map(|(all, each)| all * each / 1e9),
            nats_messages,
            nats_servers: servers.map(|servers| servers.max(3.0)),
            sessions,
            database: costs.session_us.value.map(|us| sessions * us / 1e6),
            lost,
            back: back(),
        }
    }
}

/// The page's tables: what is measured, what clusters need, and the model beside a run of three nodes.
pub(crate) fn tables(arguments: &Arguments, records: &Records, up: &str) -> String {
    let costs = Costs::of(records);
    let measured: Vec<_> = costs.all().iter().map(|cost| cost.cells(up)).collect();
    let mut text = table(&["measured", ">", "record"], &measured);
    text += &format!(
        "\nAssumed: nodes of {} cores and {} GB, with {} connections at most; half of the users have a second one; {} % \
         of the processor time used; a heartbeat every {} s; a client stays {} minutes; {} subscribers a channel, \
         {} of 128 B published to each a minute.\n\n",
        figure(arguments.cores),
        figure(arguments.memory_gb),
        figure(arguments.node_conns),
        figure(arguments.busy * 100.0),
        figure(arguments.heartbeat),
        figure(arguments.stay),
        figure(arguments.subscribers),
        figure(arguments.publications),
    );
    let clusters: Vec<_> =
        arguments.conns.iter().map(|&conns| Cluster::of(conns as f64, arguments, &costs)).collect();
    let row = |what: &str, value: &dyn Fn(&Cluster) -> Option<f64>| {
        let cells = clusters.iter().map(|cluster| value(cluster).map_or("-".to_owned(), figure));
        std::iter::once(what.to_owned()).chain(cells).collect::<Vec<_>>()
    };
    let rows = [
        row("nodes for the memory", &|cluster| cluster.by_memory),
        row("nodes for the processor time", &|cluster| cluster.by_cpu),
        row("nodes for the connections of one", &|cluster| Some(cluster.by_conns)),
        row("**nodes**, with one to spare, 3 at least", &|cluster| cluster.nodes),
        row("network of all nodes, Gbit/s", &|cluster| cluster.network),
        row("subscriptions in NATS", &|cluster| cluster.subscriptions),
        row("memory of each NATS server for them, GB", &|cluster| cluster.nats_memory),
        row("messages through NATS a second", &|cluster| cluster.nats_messages),
        row("**NATS servers**, 3 at least", &|cluster| cluster.nats_servers),
        row("sessions that begin or end a second", &|cluster| Some(cluster.sessions)),
        row("**cores of PostgreSQL** for them", &|cluster| cluster.database),
        row("clients of a node that dies", &|cluster| cluster.lost),
        row("**until they are back**, s", &|cluster| cluster.back),
    ];
    let conns: Vec<_> = arguments.conns.iter().map(|&conns| grouped(conns) + ">").collect();
    let headings: Vec<_> =
        std::iter::once("connections").chain(conns.iter().map(String::as_str)).collect();
    text += &table(&headings, &rows);
    text += "\n";
    text + &beside_three_nodes(records, &costs, up)
}

/// Whole numbers as they are, others with three figures.
fn figure(value: f64) -> String {
    if value.fract() == 0.0 { rounded(value) } else { short(value) }
}

/// The model beside the newest run of R5 on three nodes.
fn beside_three_nodes(records: &Records, costs: &Costs, up: &str) -> String {
    let runs = records.runs().filter(|(_, run)| is_ours(run) && R5_NODES.unmet(run).is_none());
    let Some((place, run)) = runs.max_by_key(|(place, run)| (&run.started, *place)) else {
        return "No run of three nodes is recorded yet.\n".to_owned();
    };
    let conns = run.connections() as f64;
    let steady = conns / run.parameters.every.max(1.0);
    // Both ends are on the machine, so the cores of each second are divided between them.
    let cpu = costs.heartbeat_us.value.map(|us| steady * us / 1e6);
    let own = run.phases.first().map(|steady| steady.client_cpu_seconds / steady.seconds);
    let back = || {
        let lost = run.nodes.as_ref()?.ended.first()?.lost as f64;
        let client = run.connect.client_cpu_seconds * 1e6 / conns;
        let free = run.machine.cores as f64 - cpu? - own?;
        Some(lost * (costs.connect_us.value? + client) / 1e6 / free.max(0.1))
    };
    let measured_cpu = values::steady_cpu_us(run).map(|us| us * conns / 1e6);
    let row = |what: &str, model: Option<f64>, measured: Option<f64>| {
        let [model, measured] = [model, measured].map(|value| value.map_or("-".to_owned(), figure));
        vec![what.to_owned(), model, measured]
    };
    let rows = [
        row("cores of all nodes for heartbeats", cpu, measured_cpu),
        row(
            "memory of a connection on the last node, B",
            costs.bytes.value,
            values::total_bytes(run),
        ),
        row(
            "until the clients of the killed node are back, s",
            back(),
            values::back_seconds(run, "killed"),
        ),
    ];
    let headings = ["the model beside three nodes", "computed>", "measured>"];
    format!(
        "{}\nThe run: {} connections, {}.\n",
        table(&headings, &rows),
        grouped(run.connections()),
        link(place, up)
    )
}

/// Heads of Ethernet, IP and TCP, with that of the acknowledgement in part.
const PACKET_BYTES: f64 = 100.0;

/// A publication of 128 B as a client gets it.
const DELIVERY_BYTES: f64 = 200.0;

/// Half of the users have two connections.
const CONNS_PER_USER: f64 = 1.5;

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(value: impl Fn(usize) -> Option<f64>) -> Costs {
        let mut costs = Costs::of(&Records::default());
        let Costs { bytes, heartbeat_us, connect_us, delivery_us, .. } = &mut costs;
        for (index, cost) in [bytes, heartbeat_us, connect_us, delivery_us].into_iter().enumerate()
        {
            cost.value = value(index);
        }
        costs.heartbeat_bytes.value = value(4);
        costs
    }

    /// Shows each formula on round numbers, and that a missing record leaves out what needs it only.
    #[test]
    fn clusters_are_computed_from_costs() {
        let arguments = Arguments {
            cores: 10.0,
            memory_gb: 1.0,
            node_conns: 1e6,
            stay: 100.0,
            ..Arguments::default()
        };
        let costs = costs(|index| Some([4000.0, 30.0, 60.0, 6.0, 100.0][index]));
        let cluster = Cluster::of(6e6, &arguments, &costs);
        assert_eq!(cluster.by_memory, Some(24.0));
        // 200,000 heartbeats of 30 us, 1,000 connects of 60 us, 100,000 deliveries of 6 us: 6.66 cores of 5 each.
        assert!((cluster.by_cpu.expect("known") - 6.66 / 5.0).abs() < 1e-9);
        assert_eq!((cluster.nodes, cluster.lost), (Some(25.0), Some(240_000.0)));
        assert_eq!(cluster.subscriptions, Some(150_000.0));
        assert!((cluster.back.expect("known") - 14.4 / (240.0 - 6.66)).abs() < 1e-9);
        assert_eq!((cluster.nats_memory, cluster.database), (None, None));
        assert!((cluster.sessions - 2000.0 / 1.5).abs() < 1e-9);
    }

    /// Shows that the page says what is missing.
    #[test]
    fn without_records_nothing_is_made_up() {
        let text = tables(&Arguments::default(), &Records::default(), "");
        assert!(text.contains("| memory for a connection, all in | not measured yet |"), "{text}");
        assert!(
            text.contains("| **nodes**, with one to spare, 3 at least | - | - | - |"),
            "{text}"
        );
    }
}
