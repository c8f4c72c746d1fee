//! What a client of Cove does beside calling: show its token, ask again, go on where it was.

use std::{env, error::Error, fs, io, iter, time::Duration};

use tokio::time::{Instant, sleep};
use tonic::{
    Code, Request, Response, Status, TimeoutExpired,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_types::StatusExt;

use proto::cove::executor::v1::Exit;
use proto::cove::gateway::v1::{
    ReadOutputRequest, execution_service_client::ExecutionServiceClient,
    file_service_client::FileServiceClient, read_output_response::Event,
    source_service_client::SourceServiceClient, workspace_service_client::WorkspaceServiceClient,
};

/// What `build.rs` made of the protos.
#[allow(clippy::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/cove.rs"));
}

/// A channel that shows a token with every call.
pub type Transport = InterceptedService<Channel, Token>;

/// A connection to Cove. The clients are cheap to clone, which a call needs.
pub struct Cove {
    pub workspaces: WorkspaceServiceClient<Transport>,
    pub executions: ExecutionServiceClient<Transport>,
    pub files: FileServiceClient<Transport>,
    pub source: SourceServiceClient<Transport>,
}

impl Cove {
    /// Connects with the first call. `address` is `host:port`, or `https://host:port` with TLS.
    pub fn new(address: &str, token: &str) -> Result<Self, Box<dyn Error>> {
        let endpoint = if address.starts_with("https://") {
            Endpoint::from_shared(address.to_owned())?.tls_config(authorities()?)?
        } else {
            Endpoint::from_shared(format!("http://{address}"))?
        };
        let channel = endpoint
            // Else a peer that is gone without a word is not missed.
            .http2_keep_alive_interval(Duration::from_secs(20))
            .connect_lazy();
        let transport = InterceptedService::new(channel, Token(format!("Bearer {token}").parse()?));
        Ok(Self {
            workspaces: WorkspaceServiceClient::new(transport.clone()),
            executions: ExecutionServiceClient::new(transport.clone()),
            files: FileServiceClient::new(transport.clone()),
            source: SourceServiceClient::new(transport),
        })
    }

    /// Writes the output of an execution until it ends. Returns how it ended, and how often the
    /// connection broke. After a break it goes on at the byte where it was: none comes twice, none
    /// is missing. What `write` fails with ends it.
    pub async fn follow(
        &self,
        execution: &str,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(Exit, u32), Status> {
        let (mut patience, mut offset, mut breaks) = (Patience::default(), 0, 0);
        loop {
            let request = ReadOutputRequest {
                name: execution.to_owned(),
                from_offset: offset,
                follow: true,
                ..Default::default()
            };
            let failure = match self.executions.clone().read_output(request).await {
                Err(failure) => failure,
                Ok(response) => {
                    let mut events = response.into_inner();
                    loop {
                        match events.message().await {
                            Err(failure) => break failure,
                            Ok(None) => break Status::unavailable("the output broke off"),
                            Ok(Some(message)) => {
                                patience = Patience::default(); // Any event is an answer.
                                match message.event {
                                    Some(Event::Chunk(chunk)) => {
                                        write(&chunk.data)?;
                                        offset = chunk.offset + chunk.data.len() as i64;
                                    }
                                    Some(Event::Gap(gap)) => offset = gap.to, // Kept no longer.
                                    Some(Event::Exit(exit)) => return Ok((exit, breaks)),
                                    _ => {} // A heartbeat, or an event newer than this program.
                                }
                            }
                        }
                    }
                }
            };
            patience.pause(failure).await?;
            breaks += 1;
        }
    }
}

/// Makes a call until it is answered. `call` sends the same request each time, with the same
/// request id: it is carried out once, however often it comes.
pub async fn again<T>(call: impl AsyncFn() -> Result<Response<T>, Status>) -> Result<T, Status> {
    let mut patience = Patience::default();
    loop {
        match call().await {
            Ok(response) => return Ok(response.into_inner()),
            Err(failure) => patience.pause(failure).await?,
        }
    }
}

/// A request id: the same in every retry of one request, which is carried out once.
pub fn once() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Adds the token to the metadata of a call.
#[derive(Clone)]
pub struct Token(MetadataValue<Ascii>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// What to branch on in a failure; empty where no server of Cove said it.
pub fn reason(failure: &Status) -> String {
    let info = failure.get_details_error_info();
    info.filter(|info| info.domain == "cove")
        .map_or_else(String::new, |info| info.reason)
}

/// By whom the gateway's certificate must be made: COVE_CA_FILE, or who the system trusts.
fn authorities() -> io::Result<ClientTlsConfig> {
    let tls = ClientTlsConfig::new();
    let file = env::var_os("COVE_CA_FILE").filter(|file| !file.is_empty());
    Ok(match file {
        Some(file) => tls.ca_certificate(Certificate::from_pem(fs::read(file)?)),
        None => tls.with_native_roots(),
    })
}

/// How long one call is repeated while nobody answers.
#[derive(Default)]
struct Patience {
    failing_since: Option<Instant>,
    failures: u32,
}

impl Patience {
    const LIMIT: Duration = Duration::from_secs(60);
    const LEAST: Duration = Duration::from_millis(50);
    const MOST: Duration = Duration::from_secs(5);

    /// Waits until the next attempt, or returns the failure where there shall be none.
    async fn pause(&mut self, failure: Status) -> Result<(), Status> {
        let wait = (Self::LEAST * 2_u32.pow(self.failures.min(10))).min(Self::MOST);
        let wait = wait
            .mul_f64(0.5 + fastrand::f64() / 2.0)
            .max(asked(&failure));
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if !may_be_repeated(&failure) || since.elapsed() + wait > Self::LIMIT {
            return Err(failure);
        }
        self.failures += 1;
        sleep(wait).await;
        Ok(())
    }
}

/// Whether nothing came of a call, or what did can be asked for again by its request id.
fn may_be_repeated(failure: &Status) -> bool {
    match reason(failure).as_str() {
        // Nobody of Cove answered, whatever the code; or the caller's own deadline passed.
        "" => failure.code() != Code::DeadlineExceeded && !timed_out(failure),
        "ERROR_REASON_RATE_LIMITED" | "ERROR_REASON_OVERLOADED" => true, // Nothing was begun.
        _ => failure.code() == Code::Unavailable,
    }
}

/// A deadline that passed here is CANCELLED to tonic.
fn timed_out(failure: &Status) -> bool {
    iter::successors(failure.source(), |&cause| cause.source())
        .any(|cause| cause.is::<TimeoutExpired>())
}

/// For how long the server asks to be left alone.
fn asked(failure: &Status) -> Duration {
    let retry = failure.get_details_retry_info();
    retry
        .and_then(|retry| retry.retry_delay)
        .unwrap_or_default()
}
