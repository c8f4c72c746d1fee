//! What a client of Cove does beside calling: show its token, ask again, go on where it was.

use std::{error::Error, io, time::Duration};

use tokio::time::{Instant, sleep};
use tonic::{
    Code, Request, Response, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

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
    /// Connects with the first call. `address` is `host:port`, without TLS.
    pub fn new(address: &str, token: &str) -> Result<Self, Box<dyn Error>> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?
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
    /// is missing.
    pub async fn follow(
        &self,
        execution: &str,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(Exit, u32), Status> {
        let (mut patience, mut offset, mut breaks) = (Patience::new(), 0, 0);
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
                                patience = Patience::new(); // What failed before is forgotten.
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
    let mut patience = Patience::new();
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

/// How long one call is repeated while nobody answers.
struct Patience {
    end: Instant,
    wait: Duration,
}

impl Patience {
    const LIMIT: Duration = Duration::from_secs(60);
    const LEAST: Duration = Duration::from_millis(50);
    const MOST: Duration = Duration::from_secs(5);

    fn new() -> Self {
        Self {
            end: Instant::now() + Self::LIMIT,
            wait: Self::LEAST,
        }
    }

    /// Waits until the next attempt, or returns the failure where there shall be none.
    async fn pause(&mut self, failure: Status) -> Result<(), Status> {
        // A connection that breaks is UNKNOWN to tonic, or CANCELLED, and has a source; what a
        // server answers has none.
        let unanswered = failure.code() == Code::Unavailable || failure.source().is_some();
        if !unanswered || Instant::now() > self.end {
            return Err(failure);
        }
        sleep(self.wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.wait = (2 * self.wait).min(Self::MOST);
        Ok(())
    }
}
