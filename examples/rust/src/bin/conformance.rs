//! The scenario that a client in any language runs; tests/interop says what its lines mean.

use std::{env, error::Error};

use cove_example::proto::cove::{
    executor::v1::{Execution, ExecutionSpec, Exit, WriteFileEnd, exit::Reason},
    gateway::v1::{
        CreateCommitRequest, CreateWorkspaceRequest, DeleteWorkspaceRequest, ExecuteRequest,
        GetWorkspaceRequest, GetWorktreeStatusRequest, StartExecutionRequest, WaitExecutionRequest,
        Workspace, WriteFileHeader, WriteFileRequest, workspace::State, write_file_request::Part,
    },
    git::v1::{Commit, Signature},
    registry::v1::EnvironmentSpec,
};
use cove_example::{Cove, again, once};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

type Done = Result<(), Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let scenario = Scenario::new()?;
    scenario.create().await?;
    scenario.run().await?;
    scenario.commit().await?;
    scenario.delete().await
}

struct Scenario {
    cove: Cove,
    suffix: String,
    id: String,
    name: String,
}

impl Scenario {
    fn new() -> Result<Self, Box<dyn Error>> {
        let suffix = env::var("COVE_SUFFIX")?;
        Ok(Self {
            cove: connect("COVE_ADDRESS")?,
            id: format!("rust-{suffix}"),
            name: format!("workspaces/rust-{suffix}"),
            suffix,
        })
    }

    async fn create(&self) -> Done {
        let spec = EnvironmentSpec {
            repository: env::var("COVE_REPOSITORY")?,
            ..Default::default()
        };
        let mut request = CreateWorkspaceRequest {
            workspace_id: self.id.clone(),
            workspace: Some(Workspace {
                spec: Some(spec),
                ..Default::default()
            }),
            request_id: once(),
            ..Default::default()
        };
        let losing = connect("COVE_LOSING_ADDRESS")?.workspaces;
        let made = again(async || losing.clone().create_workspace(request.clone()).await).await?;
        let made = made.workspace.unwrap_or_default();
        tell(json!({"step": "create", "name": made.name, "uid": made.uid}));

        let mut workspaces = self.cove.workspaces.clone();
        let same = workspaces.create_workspace(request.clone()).await?;
        let same = same.into_inner().workspace.unwrap_or_default();
        tell(json!({"step": "again", "same": same.uid == made.uid}));

        request.workspace_id.push_str("-2");
        refused("reused", workspaces.create_workspace(request).await);
        let name = format!("workspaces/none-{}", self.suffix);
        let missing = workspaces.get_workspace(GetWorkspaceRequest { name });
        refused("missing", missing.await);
        let request = CreateWorkspaceRequest {
            workspace_id: "No Such!".into(),
            ..Default::default()
        };
        refused("invalid", workspaces.create_workspace(request).await);
        Ok(())
    }

    async fn run(&self) -> Done {
        let spec = ExecutionSpec {
            script: "echo ran >> runs; seq -w 1048576".into(),
            ..Default::default()
        };
        let request = StartExecutionRequest {
            parent: self.name.clone(),
            execution: Some(Execution {
                spec: Some(spec),
                ..Default::default()
            }),
            request_id: once(),
            ..Default::default()
        };
        let losing = connect("COVE_LOSING_ADDRESS")?.executions;
        let started = again(async || losing.clone().start_execution(request.clone()).await).await?;
        let name = started.execution.unwrap_or_default().name;
        tell(json!({"step": "start", "execution": name}));

        let (mut digest, mut bytes) = (Sha256::new(), 0);
        let write = |data: &[u8]| {
            digest.update(data);
            bytes += data.len();
            Ok(())
        };
        let (_, breaks) = connect("COVE_CUTTING_ADDRESS")?
            .follow(&name, write)
            .await?;
        let sha256: String = digest
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        tell(json!({"step": "output", "bytes": bytes, "sha256": sha256, "breaks": breaks}));

        let mut executions = self.cove.executions.clone();
        let ended = executions
            .wait_execution(WaitExecutionRequest { name })
            .await?;
        tell(json!({"step": "exit", "exit_code": code(ended.into_inner().execution)}));
        let request = ExecuteRequest {
            name: self.name.clone(),
            spec: Some(ExecutionSpec {
                argv: ["sh", "-c", "exit 3"].map(String::from).to_vec(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let failed = executions.execute(request).await?;
        tell(json!({"step": "failed", "exit_code": code(failed.into_inner().execution)}));
        Ok(())
    }

    async fn commit(&self) -> Done {
        let content = b"hello from rust\n".to_vec();
        let end = WriteFileEnd {
            bytes: content.len() as i64,
        };
        let header = WriteFileHeader {
            name: self.name.clone(),
            path: "hello.txt".into(),
            request_id: once(),
            ..Default::default()
        };
        let parts = [Part::Header(header), Part::Data(content), Part::End(end)];
        let requests = parts.map(|part| WriteFileRequest { part: Some(part) });
        let mut files = self.cove.files.clone();
        let written = files.write_file(tokio_stream::iter(requests)).await?;
        let path = written.into_inner().file.unwrap_or_default().path;
        tell(json!({"step": "write", "path": path}));

        let request = GetWorktreeStatusRequest {
            name: self.name.clone(),
            ..Default::default()
        };
        let status = self
            .cove
            .source
            .clone()
            .get_worktree_status(request)
            .await?;
        let entries = status.into_inner().status.unwrap_or_default().entries;
        let paths: Vec<_> = entries.into_iter().map(|entry| entry.path).collect();
        tell(json!({"step": "status", "paths": paths}));

        let author = Signature {
            name: "Ada".into(),
            email: "ada@example.org".into(),
            ..Default::default()
        };
        let request = CreateCommitRequest {
            parent: self.name.clone(),
            commit: Some(Commit {
                message: "Say hello".into(),
                author: Some(author),
                ..Default::default()
            }),
            request_id: once(),
            ..Default::default()
        };
        let losing = connect("COVE_LOSING_ADDRESS")?.source;
        let made = again(async || losing.clone().create_commit(request.clone()).await).await?;
        tell(json!({"step": "commit", "commit": made.commit.unwrap_or_default().id}));
        Ok(())
    }

    async fn delete(&self) -> Done {
        let mut workspaces = self.cove.workspaces.clone();
        let name = self.name.clone();
        let request = DeleteWorkspaceRequest {
            name: name.clone(),
            ..Default::default()
        };
        workspaces.delete_workspace(request).await?;
        let left = workspaces
            .get_workspace(GetWorkspaceRequest { name })
            .await?;
        let left = left.into_inner().workspace.unwrap_or_default();
        tell(json!({"step": "delete", "deleted": left.state() == State::Deleted}));
        Ok(())
    }
}

/// Tells how a call that must fail failed.
fn refused<T>(step: &str, answer: Result<Response<T>, Status>) {
    let Err(failure) = answer else {
        panic!("{step}: this call must fail");
    };
    let details = failure.get_error_details();
    let info = details.error_info().expect("a reason");
    let first = details
        .bad_request()
        .and_then(|bad| bad.field_violations.first());
    tell(json!({
        "step": step,
        "code": name(failure.code()),
        "reason": info.reason,
        "domain": info.domain,
        "field": first.map_or("", |violation| &violation.field),
        "resource": info.metadata.get("name").map_or("", String::as_str),
    }));
}

/// As the protocol spells it.
fn name(code: Code) -> &'static str {
    match code {
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::NotFound => "NOT_FOUND",
        _ => "another",
    }
}

fn code(execution: Option<Execution>) -> Option<i32> {
    match execution?.exit? {
        Exit {
            reason: Some(Reason::Code(code)),
            ..
        } => Some(code),
        _ => None,
    }
}

fn tell(line: Value) {
    println!("{line}");
}

/// With a connection of its own.
fn connect(variable: &str) -> Result<Cove, Box<dyn Error>> {
    Cove::new(&env::var(variable)?, &env::var("COVE_TOKEN")?)
}
